"""`prompt.mask`: a prompt that is trained under a mask from the start, as "rewound and retrained" is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from softprune.errors import ManyErrors, SoftpruneError
from softprune.pipelines.adapt import adapt
from softprune.pipelines.xprompt import tune, xprompt
from softprune.prompts.prompt_io import load_mask, load_vectors, mask_bytes, prompt_bytes
from softprune.prompts.ticket import Ticket
from softprune.runs.atomic_io import tensor_bytes
from softprune.types import Mask

pytestmark = pytest.mark.slow

PIECES = torch.zeros(4, 4, dtype=torch.bool)
PIECES[1, 1:] = True
PIECES[3, :2] = True
MASK = Mask(PIECES.any(1), PIECES)


@pytest.fixture(scope="module")
def recipe(tiny_models: Callable[[str], Path]) -> dict[str, Any]:
    return {
        "backbone": {"name": str(tiny_models("sentence")), "threads": 1, "dtype": "float32", "device": "cpu"},
        "task": {"id": "demo", "shots": 40, "limit_report": 8},
        "prompt": {"tokens": 4, "pieces": 4},
        "tuning": {"epochs": 3, "patience": None},
        "selection": {"resamples": 50},
    }


def changed(recipe: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return {name: {**recipe.get(name, {}), **sections.get(name, {})} for name in {**recipe, **sections}}


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def vectors(run: Path, name: str = "tuned") -> torch.Tensor:
    return load_vectors(run / "prompts" / f"{name}.safetensors")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("removal", ["zero", "drop"])
@pytest.mark.parametrize("scope", ["survivors", "all"])
def test_what_is_masked_stays_exactly_zero(recipe: dict[str, Any], tmp_path: Path, removal: str, scope: str) -> None:
    mask = written(tmp_path / "m.safetensors", mask_bytes(MASK))
    settings = changed(recipe, pruning={"removal": removal}, tuning={"clip_scope": scope})
    run = tune(changed(settings, prompt={"mask": mask}), tmp_path / "masked")
    kept = MASK.elements_PH(vectors(run).shape[1])
    assert torch.equal(vectors(run) != 0, kept)
    assert not torch.equal(vectors(run)[kept], vectors(run, "initial")[kept])
    ticket = Ticket.load(run)
    assert torch.equal(ticket.state.mask.piece_PS, PIECES)
    assert torch.equal(ticket.state.vectors_PH, vectors(run))
    info = json.loads((run / "run.json").read_text())
    assert (info["ticket"]["tokens"], info["ticket"]["pieces"], info["removal"]) == (2, 5, removal)
    if (removal, scope) == ("zero", "survivors"):
        whole = tune(settings, tmp_path / "whole")
        assert (vectors(whole)[~kept] != 0).all()
        assert json.loads((whole / "run.json").read_text())["ticket"]["tokens"] is None


@pytest.mark.usefixtures("one_thread")
def test_under_drop_it_is_the_short_prompt(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Whole tokens pruned and taken out, or never there: the same. Left in their places as zeros, they are not."""
    token_P = torch.tensor([True, False, True, False])
    mask = written(tmp_path / "m.safetensors", mask_bytes(Mask(token_P, token_P[:, None].expand(4, 4).clone())))
    start_PH = vectors(tune(changed(recipe, tuning={"epochs": 1}), tmp_path / "first"))
    whole = written(tmp_path / "whole.safetensors", prompt_bytes(start_PH, {}))
    short = written(tmp_path / "short.safetensors", prompt_bytes(start_PH[token_P], {}))
    plain = changed(recipe, prompt={"init": "file", "file": short, "tokens": 2})
    expected_PH = vectors(tune(plain, tmp_path / "short"))
    masked = changed(recipe, prompt={"init": "file", "file": whole, "mask": mask})
    found_PH = vectors(tune(changed(masked, pruning={"removal": "drop"}), tmp_path / "drop"))
    moved = (expected_PH - start_PH[token_P]).norm()
    assert (found_PH[token_P] - expected_PH).norm() < 1e-4 * moved
    for name, settings in {"zero": {"pruning": {"removal": "zero"}}, "all": {"tuning": {"clip_scope": "all"}}}.items():
        other_PH = vectors(tune(changed(masked, **settings), tmp_path / name))
        assert (other_PH[token_P] - expected_PH).norm() > 1e-2 * moved


def test_a_mask_file_gives_back_its_mask(tmp_path: Path) -> None:
    found = load_mask(Path(written(tmp_path / "m.safetensors", mask_bytes(MASK))))
    assert torch.equal(found.piece_PS, PIECES)
    assert torch.equal(found.token_P, MASK.token_P)


def of(token_P: torch.Tensor, piece_PS: torch.Tensor) -> bytes:
    return tensor_bytes({"token_P": token_P, "piece_PS": piece_PS}, {})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"no safetensors", r"a \.safetensors file with token_P and piece_PS[\s\S]*mask_bytes"),
        (tensor_bytes({"token_P": torch.ones(4)}, {}), r"a \.safetensors file with token_P and piece_PS"),
        (of(torch.ones(4), torch.ones(4, 4)), r"that agree, and leave a token"),
        (of(~MASK.token_P, PIECES), r"that agree"),
        (of(MASK.token_P[:2], PIECES), r"that agree"),
        (of(MASK.token_P, PIECES[:, 0]), r"that agree"),
        (of(MASK.token_P & False, PIECES & False), r"leave a token"),
        (mask_bytes(Mask(MASK.token_P[:3], PIECES[:3])), r"a mask of 4 tokens[\s\S]*3 tokens of 4 pieces"),
        (mask_bytes(Mask(MASK.token_P, torch.ones(4, 7).bool() & MASK.token_P[:, None])), r"4 tokens of 7 pieces"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    recipe: dict[str, Any], tmp_path: Path, data: bytes, expected: str
) -> None:
    mask = written(tmp_path / "m.safetensors", data)
    with pytest.raises(SoftpruneError, match=expected):
        tune(changed(recipe, prompt={"mask": mask}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_mask_is_told_with_other_mistakes(recipe: dict[str, Any], tmp_path: Path) -> None:
    prompt = {"mask": str(tmp_path / "none.safetensors"), "init": "file", "file": str(tmp_path / "nothing.npy")}
    with pytest.raises(ManyErrors) as caught:
        tune(changed(recipe, prompt=prompt), tmp_path / "run")
    assert "none.safetensors" in str(caught.value)
    assert "nothing.npy" in str(caught.value)


@pytest.mark.parametrize("make", [xprompt, adapt])
def test_only_tuning_has_a_mask(recipe: dict[str, Any], tmp_path: Path, make: Callable[..., object]) -> None:
    mask = written(tmp_path / "m.safetensors", mask_bytes(MASK))
    with pytest.raises(SoftpruneError, match=r"kind: tune[\s\S]*leave prompt\.mask out"):
        make(changed(recipe, prompt={"mask": mask}), tmp_path / "run")


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_held_to_its_mask(recipe: dict[str, Any], tmp_path: Path) -> None:
    mask = written(tmp_path / "m.safetensors", mask_bytes(MASK))
    settings = changed(recipe, prompt={"mask": mask}, tuning={"epochs": 1})
    run = tune(settings, tmp_path / "run")
    reopen(run)
    tune(settings, run)  # with the same one it goes on
    reopen(run)
    written(tmp_path / "m.safetensors", mask_bytes(Mask(~MASK.token_P, (~MASK.token_P)[:, None].expand(4, 4).clone())))
    with pytest.raises(SoftpruneError, match="the mask file changed since"):
        tune(settings, run)


def reopen(run: Path) -> None:
    """Make of a finished run one that was cut off at the end."""
    (run / "COMPLETE").unlink()
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"status": "running"}))
