"""DePT: its equation in every family, which places it moves, its numbers, its two learning rates, and whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapted import batch_of, check_rows_alone, fresh, near, plain_scores, recipe_of, run, run_dying, shake
from by_hand import FAMILIES, encoded, off_by, ours, read
from safetensors.torch import load_file

from softprune.adapters.adapter_io import read_adapter
from softprune.adapters.base import AdapterPlan
from softprune.adapters.dept import OffsetPrompt, new_offset_prompt
from softprune.config import CompareRecipe, load_config
from softprune.errors import ManyErrors, SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.prompts.initialization import common_words, from_vocabulary

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
Models = Callable[[str], Path]
P, RANK, ALPHA = 3, 4, 6
SHORT = 7  # fewer rows than the longest of the texts has tokens


def made(folder: Path, longest: int, dtype: str = "float64") -> OffsetPrompt:
    backbone = load_backbone(str(folder), dtype=dtype, device="cpu")
    plan = AdapterPlan("dept", tokens=P, rank=RANK, alpha=ALPHA, longest=longest)
    adaptation = new_offset_prompt(backbone, plan, seed=0)
    shake(adaptation)
    return adaptation


def offset_by_hand(adaptation: OffsetPrompt) -> torch.Tensor:
    """s A B, number by number, with s = alpha / sqrt(r)."""
    left, right = (adaptation.named()[name].tolist() for name in ("A_Nr", "B_rH"))
    scale = ALPHA / math.sqrt(RANK)
    rows = []
    for row in left:
        columns = zip(*right, strict=True)
        rows.append([scale * sum(a * b for a, b in zip(row, column, strict=True)) for column in columns])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("longest", "dtype"), [(64, "float64"), (64, "float32"), (SHORT, "float64")])
@pytest.mark.parametrize("model", FAMILIES)
def test_tokens_are_moved_by_their_place_in_the_text(tiny_models: Models, model: str, longest: int, dtype: str) -> None:
    """In float32 by layers of our own, where there are some."""
    adaptation = made(tiny_models(model), longest, dtype)
    backbone = adaptation.backbone
    texts, offset = encoded(backbone), offset_by_hand(adaptation)
    assert len({len(text.input_ids) for text in texts}) > 1  # so that some are padded
    assert max(len(text.input_ids) for text in texts) > SHORT
    prompt = adaptation.named()["vectors_PH"].detach()
    found = ours(backbone, adaptation.prompts(), texts)
    with adaptation.off():
        wanted = [read(backbone, prompt, text, offset) for text in texts]
        wrong = {
            "the next place's": offset.roll(1, 0),
            "none": torch.zeros_like(offset),
            "without s": offset / (ALPHA / math.sqrt(RANK)),
        }
        others = {name: [read(backbone, prompt, text, each) for text in texts] for name, each in wrong.items()}
        others["no prompt"] = [read(backbone, prompt[:0], text, offset) for text in texts]
    assert off_by(found, wanted) <= 1e-5  # transformers' norms are float32's in some models
    assert {name: off_by(found, other) > 1e-3 for name, other in others.items()} == dict.fromkeys(others, True)


@pytest.mark.parametrize("model", ["gpt2", "t5"])
def test_a_text_is_written_behind_moved_tokens(tiny_models: Models, model: str) -> None:
    """Tokens that are written get no offset; a batch's texts are those of each text alone."""
    adaptation = made(tiny_models(model), 64)
    backbone, texts = adaptation.backbone, encoded(adaptation.backbone)
    prompt, offset = adaptation.named()["vectors_PH"].detach(), offset_by_hand(adaptation)
    prompts = adaptation.prompts().detach().expand(len(texts), -1, -1)
    together = backbone.generate(prompts, backbone.batch(texts), 5)
    assert together == [backbone.generate(prompts[:1], backbone.batch([text]), 5)[0] for text in texts]
    with adaptation.off():
        assert together == [_continue(backbone, prompt, text.input_ids, offset) for text in texts]
        still = torch.zeros_like(offset)
        assert together != [_continue(backbone, prompt, text.input_ids, still) for text in texts]


@torch.no_grad()
def _continue(backbone: Backbone, prompt: torch.Tensor, ids: tuple[int, ...], offset: torch.Tensor) -> str:
    text = torch.cat([prompt, backbone.lookup(torch.tensor(ids)) + offset[: len(ids)]])
    start = backbone._start if backbone.family == "seq2seq" else []  # type: ignore[attr-defined]
    said: list[int] = []
    while len(said) < 5 and not (said and said[-1] in backbone.end_ids()):  # type: ignore[attr-defined]
        if start:
            decoded = torch.tensor([[*start, *said]])
            logits = backbone.model(inputs_embeds=text[None], decoder_input_ids=decoded).logits
        else:
            new = backbone.lookup(torch.tensor(said, dtype=torch.long))
            logits = backbone.model(inputs_embeds=torch.cat([text, new])[None]).logits
        said.append(int(logits[0, -1].argmax()))
    return str(backbone.decode_generated(torch.tensor([said]))[0])  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", ["t5", "gpt2", "bert", "sentence"])
def test_nothing_is_moved_at_first(tiny_models: Models, model: str) -> None:
    backbone = fresh(tiny_models(model))
    batch = batch_of(backbone)
    adaptation = new_offset_prompt(backbone, AdapterPlan("dept", tokens=P, longest=64), seed=0)
    prompts = adaptation.prompts().detach()
    with torch.no_grad():
        moved = backbone.scores(prompts, batch, "sum")
        with adaptation.off():
            still = backbone.scores(prompts, batch, "sum")
    assert near(moved, still, 1e-6)
    assert not near(plain_scores(backbone, batch)[None], still, 1e-3)
    left, right = (adaptation.named()[name].detach() for name in ("A_Nr", "B_rH"))
    assert not right.any()
    assert 0.9 / math.sqrt(8) < float(left.abs().max()) <= 1 / math.sqrt(8)


@pytest.mark.parametrize("model", ["t5", "gpt2", "bloom", "bert", "sentence"])
def test_a_batch_changes_no_answer(tiny_models: Models, model: str) -> None:
    adaptation = made(tiny_models(model), 64, "float32")
    backbone, texts = adaptation.backbone, encoded(adaptation.backbone)
    with torch.no_grad():
        together = backbone.scores(adaptation.prompts(), backbone.batch(texts), "sum")[0]
        for place, text in enumerate(texts):
            alone = backbone.scores(adaptation.prompts(), backbone.batch([text]), "sum")[0, 0]
            assert near(together[place], alone, 1e-5)
            assert not near(together[place - 1], alone, 1e-4)


def test_gradients_reach_all_three(tiny_models: Models) -> None:
    """Also where a prompt is read once for all rows (gpt2), whose texts are frozen without an offset."""
    for model in ("gpt2", "bloom", "t5", "bert", "sentence"):
        adaptation = made(tiny_models(model), 64)
        backbone, batch = adaptation.backbone, batch_of(adaptation.backbone)
        loss = backbone.losses(adaptation.prompts(), batch, "rank", "sum").mean()
        loss.backward()
        used = int(batch.input_mask.sum(1).max())
        for name, parameter in adaptation.named().items():
            assert parameter.grad is not None
            assert parameter.grad.any(), (model, name)
        left = adaptation.named()["A_Nr"]
        assert left.grad is not None
        assert not left.grad[used + 4 :].any()  # no text is that long, not even around a mask of several tokens
        # As a finite difference has it.
        with torch.no_grad():
            left[1, 2] += 1e-4
            more = backbone.losses(adaptation.prompts(), batch, "rank", "sum").mean()
            left[1, 2] -= 2e-4
            less = backbone.losses(adaptation.prompts(), batch, "rank", "sum").mean()
        slope = float(more - less) / 2e-4
        assert float(left.grad[1, 2]) == pytest.approx(slope, rel=5e-3), model  # T5's norms are float32's
        assert float(left.grad[1, 2]) != pytest.approx(1.05 * slope, rel=5e-3)


@pytest.mark.parametrize("rank", [2, 5])
def test_its_numbers_are_those_of_the_definition(
    tiny_models: Models, task_file: Path, tmp_path: Path, rank: int
) -> None:
    keys = (f"adapter.rank={rank}", "task.max_length=24", "tuning.epochs=1")
    info = run(recipe_of(tiny_models("bert"), task_file, "dept", *keys), tmp_path / "run")
    H, N = 32, 24
    assert info["adapter"]["trainable_parameters"] == info["adapter"]["stored_parameters"] == P * H + rank * (N + H)
    assert info["adapter"]["stored_parameters"] != P * H + rank * (N + P + H)  # no row is for a place of the prompt
    assert info["results"]["adapted"]["tokens"] == P


@pytest.mark.parametrize(("named", "factor"), [((), 0.03), (("adapter.offset_lr={relative: 0.02}",), 0.02)])
def test_prompt_and_matrices_have_a_rate_each(
    tiny_models: Models, task_file: Path, tmp_path: Path, named: tuple[str, ...], factor: float
) -> None:
    """AdamW's first step moves every number by its learning rate, here twice that of the recipe."""
    model = tiny_models("gpt2")
    keys = ("tuning.epochs=1", "tuning.batch_size=64", "tuning.sweep=2", *named)
    info = run(recipe_of(model, task_file, "dept", *keys), tmp_path / "run")
    assert info["cost"]["steps"] == 1
    backbone = fresh(model)
    rms = backbone.embeddings_rms()
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter.safetensors")
    assert float(tensors["B_rH"].abs().median()) == pytest.approx(2 * factor * rms, rel=1e-3)
    assert info["adapter"]["lr"] == pytest.approx(2 * 0.3 * rms)
    words = from_vocabulary(backbone.embed_ids, common_words(backbone.tokenizer, backbone.vocabulary)[0], P, seed=0)
    moved = (tensors["vectors_PH"] - words.vectors_PH).abs().median()
    assert float(moved) == pytest.approx(2 * 0.3 * rms, rel=1e-3)


def test_a_kill_changes_nothing(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    text = "prompt.text=the film was a slow and quiet joy"
    keys = ("prompt.init=text", text, "tuning.sweep=0.3,3", "tuning.epochs=3")
    recipe = recipe_of(tiny_models("gpt2"), task_file, "dept", *keys)
    info = run(recipe, tmp_path / "whole")
    assert [note for note in info["notes"] if "the prompt has 3 tokens: the last" in note]
    assert run_dying(recipe, tmp_path / "broken") > 4
    other = run(recipe_of(tiny_models("gpt2"), task_file, "dept", *keys[2:]), tmp_path / "other")
    files = [(tmp_path / name / "adapter" / "adapter.safetensors") for name in ("whole", "broken", "other")]
    whole, broken, differs = (file.read_bytes() for file in files)
    assert whole == broken
    assert whole != differs  # another start
    assert other["adapter"]["stored_parameters"] == info["adapter"]["stored_parameters"]


def test_latency_is_measured_with_and_without(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    info = run(recipe_of(tiny_models("gpt2"), task_file, "dept", "tuning.latency=true"), tmp_path / "run")
    assert set(info["cost"]["latency"]["1"]) == {"calls", "with", "without"}


def test_rows_are_answered_alone_as_together(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    run(recipe_of(tiny_models("bert"), task_file, "dept", "adapter.offset_lr=0.05"), tmp_path / "run")
    adapter = read_adapter(tmp_path / "run")
    assert adapter.prompt().shape == (P, 32)
    check_rows_alone(adapter)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("adapter.start=prompt",), r"adapter\.start=prompt for prefix or p-tuning-v2 alone[\s\S]*found: +dept"),
        (("tuning.optimiser=adafactor",), r"tuning\.optimiser=adamw"),
    ],
)
def test_what_it_has_no_use_for_is_refused(
    tiny_models: Models, task_file: Path, tmp_path: Path, keys: tuple[str, ...], expected: str
) -> None:
    with pytest.raises((SoftpruneError, ManyErrors), match=expected):
        run(recipe_of(tiny_models("gpt2"), task_file, "dept", *keys), tmp_path / "run")


def test_in_a_comparison_it_starts_where_the_prompt_does(tiny_models: Models, task_file: Path) -> None:
    keys = ("kind=compare", f"backbone.name={tiny_models('gpt2')}", f"task.id={task_file}", "prompt.init=labels")
    recipe = load_config(CompareRecipe, None, keys)
    assert recipe.cell("dept", 0)["prompt"]["init"] == recipe.cell("prompt", 0)["prompt"]["init"] == "labels"
    assert "init" not in recipe.cell("p-tuning", 0)["prompt"]
