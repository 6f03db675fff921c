"""Distil a sentence encoder into a small BERT that ships with the package.

Text folder in, model folder out. Stages, each cached in the work folder so that the same command continues:
texts -> teacher embeddings -> trimmed tokenizer -> training -> sentence-transformers layout.

Axes: B texts in a batch, T tokens, V kept vocabulary, H student width, E teacher embedding width.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from distil_student import Student, export, mean_pool, new_student, trim_tokenizer
from distil_texts import sample_texts
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from softprune.backbone.load import resolve_dtype

SNAPSHOT_AT = 0.7  # held-out cosine


@dataclass(frozen=True)
class Paths:
    """Where a run reads and writes; the recipe holds everything else."""

    data: Path  # folder of *.txt.xz, one paragraph a line
    teacher: str  # folder or hub name
    work: Path  # caches, checkpoints, log
    out: Path  # the finished model
    snapshot: Path | None  # an early export, made once the held-out cosine exceeds SNAPSHOT_AT
    minutes: float  # of training at most; the schedule follows the clock where that is ahead of the steps


def cached_texts(paths: Paths, recipe: dict[str, Any]) -> tuple[list[str], Counter[str]]:
    """The first `used` of `sample_texts`, kept in the work folder, and the word counts."""
    cache = paths.work / "texts.json"
    if not cache.exists():
        texts, counts = sample_texts(paths.data, recipe["texts"], random.Random(recipe["seed"]))
        partial = cache.with_suffix(".part")
        partial.write_text(json.dumps({"texts": texts, "counts": counts}))
        partial.rename(cache)
    stored = json.loads(cache.read_text())
    return stored["texts"][: recipe["texts"]["used"]], Counter(stored["counts"])


# ---------------------------------------------------------------- teacher


def pad(rows: list[list[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both [B, T], of ragged rows."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def tokenize(tokenizer: Any, texts: list[str], max_tokens: int) -> list[list[int]]:
    """Unpadded token ids of each text, special tokens included."""
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=max_tokens, padding=False)["input_ids"]
    return ids


@torch.inference_mode()
def embed_rows(teacher: nn.Module, rows: list[list[int]], batch: int, device: str) -> Tensor:
    """Unit-length teacher embeddings [N, E], computed in length-sorted batches."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    pieces = []
    for start in range(0, len(order), batch):
        ids, mask = pad([rows[i] for i in order[start : start + batch]], 0)
        with products(device):
            states = teacher(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state.float()
        pieces.append(functional.normalize(mean_pool(states, mask.to(device)), dim=-1).cpu())
    out = torch.empty(len(rows), pieces[0].shape[1])
    out[torch.tensor(order)] = torch.cat(pieces)
    return out


def products(device: str) -> torch.autocast:
    """Matrix products in bfloat16 where the hardware is fast at them; weights and losses stay float32."""
    place = torch.device(device)
    return torch.autocast(place.type, torch.bfloat16, enabled=resolve_dtype("auto", place) is torch.bfloat16)


def teacher_embeddings(paths: Paths, recipe: dict[str, Any], texts: list[str], device: str) -> Tensor:
    """Teacher embeddings [N, E] of all texts; one cached shard at a time, so an interrupted run continues."""
    settings = recipe["teacher"]
    tokenizer = AutoTokenizer.from_pretrained(paths.teacher)
    teacher = AutoModel.from_pretrained(paths.teacher).eval().to(device)
    shards = []
    for start in range(0, len(texts), settings["shard"]):
        file = paths.work / f"teacher_{start:07d}.safetensors"
        if not file.exists():
            began = time.time()
            rows = tokenize(tokenizer, texts[start : start + settings["shard"]], settings["max_tokens"])
            found = embed_rows(teacher, rows, settings["batch"], device)
            save_file({"embeddings": found.half()}, file.with_suffix(".part"))
            file.with_suffix(".part").rename(file)
            tokens = sum(map(len, rows))
            rate = round(tokens / (time.time() - began))
            log(paths.work, stage="teacher", texts=start + len(rows), tokens=tokens, tokens_per_second=rate)
        shards.append(load_file(file)["embeddings"].float())
    return functional.normalize(torch.cat(shards)[: len(texts)], dim=-1)


def log(work: Path, **fields: Any) -> None:
    """Append one JSON line to the run's log and print it."""
    line = json.dumps({"time": time.strftime("%H:%M:%S"), **fields})
    with (work / "log.jsonl").open("a") as handle:
        handle.write(line + "\n")
    print(line, flush=True)


# ---------------------------------------------------------------- training


def epoch_batches(lengths: list[int], batch: int, rng: random.Random) -> list[list[int]]:
    """Indices of every text once, in batches of similar length and random order."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    chunk = 50 * batch
    batches = []
    for start in range(0, len(order), chunk):
        block = sorted(order[start : start + chunk], key=lengths.__getitem__)
        batches += [block[i : i + batch] for i in range(0, len(block), batch)]
    rng.shuffle(batches)
    return [indices for indices in batches if len(indices) > batch // 2]


def schedule(progress: float, warmup: float) -> float:
    """Learning-rate factor at `progress` in [0, 1]: linear warm-up, then half a cosine down to 0.01."""
    if progress < warmup:
        return progress / warmup + 1e-3
    return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * (progress - warmup) / (1 - warmup))))


def losses(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """1 - cosine to the teacher, and mean squared error of the two cosine matrices [B, B]; inputs [B, E]."""
    return 1 - (found * wanted).sum(-1).mean(), functional.mse_loss(found @ found.T, wanted @ wanted.T)


@torch.inference_mode()
def held_out_cosine(student: Student, rows: list[list[int]], targets: Tensor, device: str) -> float:
    """Mean cosine between student and teacher over the held-out texts; `targets` [N, E]."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    total = 0.0
    for start in range(0, len(order), 256):
        chosen = order[start : start + 256]
        ids, mask = (part.to(device) for part in pad([rows[i] for i in chosen], 0))
        total += float((student(ids, mask).cpu() * targets[chosen]).sum())
    return total / len(rows)


def make_optimizer(student: Student, settings: dict[str, Any]) -> torch.optim.AdamW:
    """AdamW with decay on the matrices of the layers only."""
    named = [(name, weight) for name, weight in student.named_parameters() if "pooler" not in name]
    decayed = [weight for name, weight in named if weight.ndim == 2 and "embeddings" not in name]
    kept = [weight for name, weight in named if weight.ndim != 2 or "embeddings" in name]
    groups = [
        {"params": decayed, "weight_decay": settings["weight_decay"]},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings["peak_rate"], betas=(0.9, 0.98), fused=True)


def save_checkpoint(work: Path, student: Student, optimizer: torch.optim.AdamW, step: int) -> None:
    """One safetensors file: weights, optimizer state and the number of steps done."""
    tensors = {f"model.{name}": weight for name, weight in student.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    partial = work / "checkpoint.part"
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial, {"step": str(step)})
    partial.rename(work / "checkpoint.safetensors")


def load_checkpoint(work: Path, student: Student, optimizer: torch.optim.AdamW) -> int:
    """Restore what `save_checkpoint` wrote, if anything; return the number of steps done."""
    file = work / "checkpoint.safetensors"
    if not file.exists():
        return 0
    tensors = load_file(file)
    model = {name.removeprefix("model."): v for name, v in tensors.items() if name.startswith("model.")}
    student.load_state_dict(model)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    with safe_open(file, "pt") as handle:
        return int(handle.metadata()["step"])


def train(
    paths: Paths,
    recipe: dict[str, Any],
    texts: list[str],
    counts: Counter[str],
    targets: Tensor,
    device: str,
) -> None:
    """Train on all texts but the first `held_out`, then export; `targets` [N, E]."""
    settings, held = recipe["training"], recipe["texts"]["held_out"]
    torch.manual_seed(recipe["seed"])
    teacher = AutoModel.from_pretrained(paths.teacher)
    tokens = paths.work / "tokenizer"
    positions = teacher.config.max_position_embeddings
    kept = trim_tokenizer(paths.teacher, counts, recipe["student"]["vocab"], tokens, positions)
    student = new_student(recipe["student"], teacher, kept, targets.shape[1]).to(device)
    optimizer = make_optimizer(student, settings)
    rows = tokenize(AutoTokenizer.from_pretrained(tokens), texts, recipe["teacher"]["max_tokens"])
    lengths = [len(row) for row in rows[held:]]
    batches = [
        indices
        for epoch in range(settings["passes"])
        for indices in epoch_batches(lengths, settings["batch"], random.Random(f"{recipe['seed']}-{epoch}"))
    ][: settings["steps"]]
    done = load_checkpoint(paths.work, student, optimizer)
    log(paths.work, stage="train", steps=len(batches), tokens_per_pass=sum(lengths), resumed_at=done)
    began = saved = time.time()
    start = done / len(batches)
    for step in range(done, len(batches)):
        clock = start + (1 - start) * (time.time() - began) / (60 * paths.minutes)
        progress = min(1.0, max(step / len(batches), clock))
        last = progress == 1.0 or step + 1 == len(batches)
        for group in optimizer.param_groups:
            group["lr"] = settings["peak_rate"] * schedule(progress, settings["warmup"])
        chosen = [held + index for index in batches[step]]
        ids, mask = (part.to(device) for part in pad([rows[i] for i in chosen], 0))
        with products(device):
            found = student(ids, mask)
        embedding, similarity = losses(found.float(), targets[chosen].to(device))
        optimizer.zero_grad()
        (embedding + settings["similarity_weight"] * similarity).backward()
        norm = nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % settings["log_every"] == 0:
            numbers = {"embedding": embedding.item(), "similarity": similarity.item(), "norm": float(norm)}
            log(paths.work, step=step + 1, **{name: round(value, 5) for name, value in numbers.items()})
        if (step + 1) % settings["eval_every"] == 0 or last:
            cosine = held_out_cosine(student, rows[:held], targets[:held], device)
            log(paths.work, step=step + 1, held_out_cosine=round(cosine, 4))
            if paths.snapshot and cosine > SNAPSHOT_AT and not paths.snapshot.exists():
                export(student, tokens, paths.snapshot)
        if time.time() - saved > 60 * settings["checkpoint_minutes"] or last:
            save_checkpoint(paths.work, student, optimizer, step + 1)
            saved = time.time()
        if last:
            break
    export(student, tokens, paths.out)
    size = sum(file.stat().st_size for file in paths.out.rglob("*") if file.is_file())
    log(paths.work, stage="exported", bytes=size)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--recipe", type=Path, required=True, help="YAML recipe")
    parser.add_argument("--data", type=Path, help="folder of *.txt.xz; default SOFTPRUNE_DATA/corpus/text")
    parser.add_argument("--teacher", required=True, help="folder or hub name of the teacher")
    parser.add_argument("--work", type=Path, required=True, help="folder for caches, checkpoints and the log")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--snapshot", type=Path, help="export here too, once the held-out cosine reaches 0.7")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="end the schedule by then if the steps take longer"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", choices=("teacher", "end"), default="end", help="last stage to run")
    return parser.parse_args()


def main() -> None:
    """Run the stages in order."""
    args = parse()
    recipe = yaml.safe_load(args.recipe.read_text())
    data = args.data or Path(os.environ["SOFTPRUNE_DATA"]) / "corpus" / "text"
    paths = Paths(data, args.teacher, args.work, args.out, args.snapshot, args.minutes)
    paths.work.mkdir(parents=True, exist_ok=True)
    texts, counts = cached_texts(paths, recipe)
    log(paths.work, stage="texts", texts=len(texts), words=sum(len(text.split()) for text in texts))
    targets = teacher_embeddings(paths, recipe, texts, args.device)
    if args.until == "end":
        train(paths, recipe, texts, counts, targets, args.device)


if __name__ == "__main__":
    main()
