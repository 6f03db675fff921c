"""How the bundled models are trained, in small: tasks by brute force, losses by plain transformers, and resuming."""

from __future__ import annotations

import copy
import importlib
import json
import lzma
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from softprune.models import load_backbone

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "scripts" / "bundled"
FAMILIES = {"tiny": "sentence", "tiny-seq2seq": "seq2seq", "tiny-causal": "causal"}
STEPS = 6


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A script's module by name; scripts import each other by bare names."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Paragraphs of made-up sentences in two compressed files."""
    rng = random.Random(3)
    nouns = ["river", "film", "door", "child", "engine", "market", "song", "letter", "garden", "match", "court", "star"]
    verbs = ["opens", "follows", "breaks", "carries", "remembers", "paints", "sells", "watches", "builds", "hides"]
    folder = tmp_path_factory.mktemp("corpus")
    for source in ("wiki_a", "novel_b"):
        lines = []
        for _ in range(150):
            made = [
                f"The {rng.choice(nouns)} {rng.choice(verbs)} a {rng.choice(nouns)} near the {rng.choice(nouns)}"
                f"{rng.choice('.?')}"
                for _ in range(4)
            ]
            lines.append(" ".join(made))
        with lzma.open(folder / f"{source}.txt.xz", "wt", encoding="utf-8") as handle:
            handle.write("\n".join(lines))
    return folder


def small_recipe(name: str) -> dict[str, Any]:
    """The shipped recipe with every size shrunk and every switch kept."""
    recipe: dict[str, Any] = yaml.safe_load((SCRIPTS / f"{name}.yaml").read_text())
    recipe["texts"] |= {"total": 300, "held_out": 40, "made_questions": 60}
    recipe["teacher"] |= {"shard": 100, "max_tokens": 24}
    recipe["student"] |= {"vocab": 120, "layers": 1, "hidden": 16, "heads": 2, "ffn": 32, "positions": 128}
    recipe["steering"] |= {"words": 40, "virtual": 6, "life": 4, "dims": 8, "soft": 3}
    rows = {part: min(6, count) for part, count in recipe["training"]["rows"].items()}
    recipe["training"] |= {"steps": STEPS, "rows": rows, "log_every": 1, "eval_every": 3, "checkpoint_minutes": 0}
    return recipe


def vectors(count: int, width: int, seed: int) -> torch.Tensor:
    """Unit vectors around a common mean, with unequal spread along their axes."""
    found = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(found * torch.linspace(2, 0.2, width) + 1, dim=-1)


STEERING = {"virtual": 10, "life": 50, "dims": 8, "cells": 4, "directions": 3, "questions": 0.3}
ASKING = torch.arange(400) % 4 == 0  # which of 400 texts are questions


def test_whitening_makes_every_direction_vary_alike(module: Callable[[str], ModuleType]) -> None:
    known = vectors(500, 12, 0)
    white = module("steering").Whitening(known, 8)(known)
    wanted = torch.eye(8)
    assert (white.T @ white / len(white) - wanted).abs().max() <= 1e-4
    raw = known[:, :8] - known[:, :8].mean(0)
    assert (raw.T @ raw / len(raw) - wanted).abs().max() > 0.1


@pytest.mark.parametrize("questions", [False, True])
def test_a_virtual_task_names_the_nearest_cell(module: Callable[[str], ModuleType], questions: bool) -> None:
    known = vectors(400, 12, 1)
    steering = module("steering").Steering(known, vectors(50, 12, 2), STEERING, 5, ASKING)
    asked = steering.virtual(known[:60], np.random.default_rng(0), questions)
    white = steering.grounds[questions].whitening(known[:60])
    sizes = set()
    for row, task in enumerate(asked.task.tolist()):
        options = [word for word in steering.options_CK[task].tolist() if word >= 0]
        sizes.add(len(options))
        assert len(set(options)) == len(options)
        along = steering.axes_CDR[task].T @ white[row]
        distances = [float((along - centre).norm()) for centre in steering.centres_CKR[task][: len(options)]]
        assert int(asked.gold[row]) == int(np.argmin(distances))
        assert asked.answers[row] == options[int(np.argmin(distances))]
    assert len(sizes) > 1
    assert len(set(asked.gold.tolist())) > 1


def test_a_listed_task_asks_for_the_word_nearest_to_the_text(module: Callable[[str], ModuleType]) -> None:
    known, words = vectors(400, 12, 3), vectors(50, 12, 4)
    asked = module("steering").Steering(known, words, STEERING, 5, ASKING).listed(known[:60], np.random.default_rng(1))
    uncentred = 0
    for row in range(60):
        options = asked.options[row].tolist()
        text = known[row] - known.mean(0)
        near = [functional.cosine_similarity(text, words[word] - words.mean(0), dim=0).item() for word in options]
        assert int(asked.gold[row]) == int(np.argmax(near))
        plain = [functional.cosine_similarity(known[row], words[word], dim=0).item() for word in options]
        uncentred += int(np.argmax(plain)) != int(np.argmax(near))
    assert asked.task is None
    assert uncentred > 0  # another rule gives other answers


def test_virtual_tasks_live_for_so_many_steps_and_follow_from_the_step_alone(
    module: Callable[[str], ModuleType],
) -> None:
    known, words = vectors(400, 12, 3), vectors(50, 12, 4)
    stepped, jumped = (module("steering").Steering(known, words, STEERING, 5, ASKING) for _ in range(2))
    first = stepped.axes_CDR.clone()
    renewed = [place for step in range(1, 51) for place in stepped.turn_to(step)]
    assert sorted(renewed) == list(range(10))  # each of them once in a life of 50 steps
    assert not any(torch.equal(old, new) for old, new in zip(first, stepped.axes_CDR, strict=True))
    jumped.turn_to(50)
    assert torch.equal(jumped.axes_CDR, stepped.axes_CDR)
    assert torch.equal(jumped.options_CK, stepped.options_CK)
    assert stepped.turn_to(50) == []


def test_a_new_task_starts_without_the_old_ones_prefix_and_moments(
    module: Callable[[str], ModuleType], corpus: Path, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    train, objective = module("train"), built(module, "tiny", corpus, tiny_models("sentence"), tmp_path)
    student = objective.student
    _, adamw = train.optimizers(student, small_recipe("tiny")["training"])
    student.prefixes.grad = torch.ones_like(student.prefixes)
    adamw.step()
    before = student.prefixes.detach().clone()
    step = next(step for step in range(1, 5) if 0 < len(set(due(objective, step))) < 6)
    renewed = due(objective, step)
    train.renew(objective, adamw, step, 20)
    for place in range(6):
        moments = adamw.state[student.prefixes]["exp_avg"][place]
        assert bool(moments.any()) == (place not in renewed)
        assert torch.equal(before[place], student.prefixes[place]) == (place not in renewed)


def due(objective: Any, step: int) -> list[int]:
    """The virtual tasks that a step renews, found on a copy."""
    found: list[int] = copy.deepcopy(objective.steering).turn_to(step)
    return found


@pytest.mark.parametrize(
    ("family", "framed"),
    [("sentence", ["[CLS]", "film", "[SEP]"]), ("seq2seq", ["film", "[SEP]"]), ("causal", ["film"])],
)
def test_a_trimmed_tokenizer_frames_a_text_as_its_family_reads_it(
    family: str,
    framed: list[str],
    module: Callable[[str], ModuleType],
    tiny_models: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    from transformers import AutoTokenizer

    teacher = str(tiny_models("sentence"))
    counts = Counter({"film": 9, "window": 3, "the": 20})
    kept = module("vocabulary").trim_tokenizer(teacher, counts, 110, tmp_path, family, 32)
    small, large = AutoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(teacher)
    assert len(small) == len(kept) < len(large)
    assert small.convert_ids_to_tokens(small("film")["input_ids"]) == framed
    assert [kept[i] for i in small("the film", add_special_tokens=False)["input_ids"]] == large(
        "the film", add_special_tokens=False
    )["input_ids"]


def built(module: Callable[[str], ModuleType], name: str, corpus: Path, teacher: Path, work: Path) -> Any:
    """An untrained objective."""
    work.mkdir(parents=True, exist_ok=True)
    train = module("train")
    return train.build(train.Paths(corpus, str(teacher), work, work / "out"), small_recipe(name), torch.device("cpu"))


@pytest.mark.parametrize("name", ["tiny-seq2seq", "tiny-causal"])
def test_steering_loss_is_the_likelihood_that_transformers_computes(
    name: str,
    module: Callable[[str], ModuleType],
    corpus: Path,
    tiny_models: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Row by row, without padding, through the model's own forward."""
    objective = built(module, name, corpus, tiny_models("sentence"), tmp_path)
    student, words = objective.student.double(), objective.words
    chosen = [0, 5, 9, 17]
    asked = module("steering").Asked(None, torch.tensor([[3, 8], [1, 2], [20, 4], [7, 9]]), torch.tensor([0, 1, 1, 0]))
    ids, mask = objective.padded(chosen)
    ours, _ = student.steer(asked, ids, mask, words)
    closing = student.special["sep"]
    sums, counts, swapped, ranked = 0.0, 0, 0.0, 0.0
    for row, word, options, gold in zip(chosen, asked.answers, asked.options.tolist(), asked.gold, strict=True):
        text, answer = objective.texts.rows[row], [*words.rows[word], closing]
        for target, place in ((answer, "right"), ([*words.rows[(word + 1) % len(words.rows)], closing], "wrong")):
            if name == "tiny-causal":
                given = torch.tensor([[*text, *target]])
                logits = student.model(input_ids=given).logits[0, len(text) - 1 : -1]
            else:
                logits = student.model(input_ids=torch.tensor([text]), labels=torch.tensor([target])).logits[0]
            lost = functional.cross_entropy(logits, torch.tensor(target), reduction="sum").item()
            sums += lost if place == "right" else 0.0
            swapped += lost if place == "wrong" else 0.0
        among = logits[0, [words.rows[option][0] for option in options]]
        ranked += functional.cross_entropy(among, gold).item() / len(chosen)
        counts += len(answer)
    wanted = sums / counts + ranked
    assert abs(ours.item() - wanted) <= 1e-6 * wanted
    assert abs(ours.item() - (swapped / counts + ranked)) > 1e-4 * wanted
    assert abs(ours.item() - sums / counts) > 1e-4 * wanted


@pytest.mark.parametrize("name", ["tiny", "tiny-seq2seq"])
def test_the_tutor_reads_a_students_tokens_as_the_teacher_does(
    name: str,
    module: Callable[[str], ModuleType],
    corpus: Path,
    tiny_models: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Row by row, without padding, through the teacher's own forward."""
    from transformers import AutoModel, AutoTokenizer

    teacher = str(tiny_models("sentence"))
    objective = built(module, name, corpus, Path(teacher), tmp_path)
    model, tokenizer = AutoModel.from_pretrained(teacher).eval(), AutoTokenizer.from_pretrained(teacher)
    small = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    ids, mask = objective.padded([3, 11, 30])
    taught = objective.tutor(ids, mask)
    tolerance = 2e-2 if taught.dtype == torch.bfloat16 or torch.cpu._is_avx512_bf16_supported() else 1e-5
    for row, wanted in enumerate(mask.sum(1).tolist()):
        tokens = small.convert_ids_to_tokens(ids[row, :wanted])
        opened = tokens if name == "tiny" else [tokenizer.cls_token, *tokens]
        given = torch.tensor([tokenizer.convert_tokens_to_ids(opened)])
        with torch.inference_mode():
            states = model(input_ids=given).last_hidden_state[0, len(opened) - wanted :]
        assert (taught[row, :wanted] - states).abs().max() <= tolerance * states.abs().max()
        assert (taught[row, :wanted] - states.flip(0)).abs().max() > 0.1 * states.abs().max()


def test_token_targets_average_to_the_embedding_that_imitation_asks_for(
    module: Callable[[str], ModuleType], corpus: Path, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    objective = built(module, "tiny", corpus, tiny_models("sentence"), tmp_path)
    ids, mask = objective.padded([2, 7])
    found, states = objective.student.embed(ids, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        mean = functional.normalize(states[row, :length].mean(0), dim=-1)
        assert (found[row] - mean).abs().max() <= 1e-5 * mean.abs().max()
        first = functional.normalize(states[row, 0], dim=-1)
        assert (found[row] - first).abs().max() > 1e-2 * mean.abs().max()


def test_batches_about_questions_hold_nothing_else(
    module: Callable[[str], ModuleType], corpus: Path, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    objective = built(module, "tiny", corpus, tiny_models("sentence"), tmp_path)
    texts = json.loads((tmp_path / "texts.json").read_text())["texts"]
    rng = np.random.default_rng(4)
    asking = objective.texts.draw(rng, 50, questions=True)
    assert all(texts[index].endswith("?") for index in asking)
    assert not all(texts[index].endswith("?") for index in objective.texts.draw(rng, 50))
    asked = objective.steering.virtual(objective.texts.targets_NE[asking], rng, questions=True)
    other = objective.steering.virtual(objective.texts.targets_NE[asking], rng)
    assert objective.steering.asking == 2
    assert set(asked.task.tolist()) == {0, 1}
    assert set(other.task.tolist()) == {2, 3, 4, 5}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prefix_decides_the_answer_and_learns(
    name: str,
    module: Callable[[str], ModuleType],
    corpus: Path,
    tiny_models: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Only the rows' own prefixes get gradients, in float32 where the products are bfloat16."""
    objective = built(module, name, corpus, tiny_models("sentence"), tmp_path)
    asked = objective.steering.virtual(objective.texts.targets_NE[:4], np.random.default_rng(2))
    weights = objective.halved()
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    loss, _ = objective.student.steer(asked, *objective.padded([0, 1, 2, 3]), objective.words)
    loss.backward()
    moved = objective.student.prefixes.grad.abs().sum((1, 2)) > 0
    assert moved.tolist() == [task in asked.task.tolist() for task in range(6)]
    step, parts = objective(0, 20, True)
    step.backward()
    assert step.dtype == torch.float32
    assert set(parts) - {"right"} == set(objective.settings["weights"])
    with torch.no_grad():
        objective.student.prefixes.mul_(-3)
    changed, _ = objective.student.steer(asked, *objective.padded([0, 1, 2, 3]), objective.words)
    assert abs(changed.item() - loss.item()) > 1e-4 * abs(loss.item())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_cut_off_goes_on_to_the_same_model(
    name: str,
    module: Callable[[str], ModuleType],
    corpus: Path,
    tiny_models: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from accelerate import Accelerator
    from safetensors.torch import load_file

    train, recipe, teacher = module("train"), small_recipe(name), tiny_models("sentence")

    def run(work: Path) -> Path:
        objective = built(module, name, corpus, teacher, work)
        paths = train.Paths(corpus, str(teacher), work, work / "out")
        train.train(objective, paths, recipe, Accelerator(cpu=True), float("inf"))
        return work / "out"

    whole = load_file(run(tmp_path / "whole") / "model.safetensors")
    save = train.Checkpoint.save

    def cut_off(checkpoint: Any, step: int) -> None:
        save(checkpoint, step)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train.Checkpoint, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut")
    resumed = run(tmp_path / "cut")
    assert any('"resumed_at": 3' in line for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines())
    again = load_file(resumed / "model.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    begun = built(module, name, corpus, teacher, tmp_path / "begun").student.model.state_dict()
    assert any(not torch.equal(whole[key].float(), begun[key]) for key in whole if key in begun)
    backbone = load_backbone(str(resumed), dtype="float32")
    assert backbone.family == FAMILIES[name]
    logged = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "held_out_cosine" in line] == [3, 6]


def test_muon_gets_the_layers_matrices_and_adamw_the_rest(
    module: Callable[[str], ModuleType], corpus: Path, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    for name in FAMILIES:
        student = built(module, name, corpus, tiny_models("sentence"), tmp_path / name).student
        made = module("train").optimizers(student, small_recipe(name)["training"])
        names = {id(weight): label for label, weight in student.named_parameters()}
        held = [names[id(w)] for optimizer in made for group in optimizer.param_groups for w in group["params"]]
        assert sorted(held) == sorted(names.values())
        muon = [names[id(w)] for group in made[0].param_groups for w in group["params"]]
        assert len(muon) >= 6
        assert not any("embed" in label or "shared" in label or label == "dense.weight" for label in muon)


def test_overlap_counts_whole_texts_and_shared_spans(module: Callable[[str], ModuleType]) -> None:
    overlap = module("overlap")
    training = [overlap.words("A b c d e f g h i j k l m n"), overlap.words("good film")]
    found = overlap.shared(["x B c, d e f g h i y", "Good film!", "a b c d e f g"], training)
    assert found == {"texts": 3, "whole": "1 ['good film']", "13 words": 0, "8 words": 1}


def test_a_twin_has_the_shapes_and_other_weights(
    module: Callable[[str], ModuleType], tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    evaluate = module("evaluate")
    for name in ("sentence", "bart", "llama"):
        model = str(tiny_models(name))
        one = load_backbone(model, dtype="float32")
        other = load_backbone(str(evaluate.random_twin(model, tmp_path / name)), dtype="float32")
        assert other.family == one.family
        shapes = {label: weight.shape for label, weight in one.model.named_parameters()}
        assert shapes == {label: weight.shape for label, weight in other.model.named_parameters()}
        assert not torch.equal(one.embeddings_VH(), other.embeddings_VH())


def test_the_table_has_mean_and_spread_over_seeds(module: Callable[[str], ModuleType]) -> None:
    cells = [
        {"task": "trec", "examples": 500, "tuned": tuned, "zero_shot": 0.4, "constant": 0.25}
        for tuned in (0.6, 0.7, 0.8)
    ]
    assert "| trec | 500 | 25.0 | 40.0 | 70.0 ± 10.0 | 3 |" in module("evaluate").table(cells)
