"""An adapter's folder, read again: the same answers, and nothing believed that isn't checked."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import METHODS, fresh, near, recipe_of, run
from safetensors.torch import load_file, save_file

from samples import every_second
from softprune.adapters.adapter_io import holds_adapter, read_adapter
from softprune.errors import SoftpruneError
from softprune.evaluation.predict import predict
from softprune.prompts.ticket import Ticket

Models = Callable[[str], Path]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def predictions(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions" / "adapted.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("method", "model"), every_second(METHODS, ["t5", "gpt2", "bert", "sentence"]))
def test_loaded_again_it_answers_as_it_did(
    tiny_models: Models, task_file: Path, tmp_path: Path, method: str, model: str
) -> None:
    out = tmp_path / "run"
    run(recipe_of(tiny_models(model), task_file, method, "tuning.lr=0.02"), out)
    assert holds_adapter(out)
    adapter = read_adapter(out)
    backbone = adapter.load(dtype="float32", device="cpu")
    told = list(predict(adapter, _rows(task_file), backbone=backbone))
    wanted = predictions(out)
    ours = torch.tensor([p.probabilities for p in told], dtype=torch.float64).log()
    assert near(ours, _log_shares(wanted), 1e-5)
    assert [p.answer for p in told] == [line["answers"][line["predicted"]] for line in wanted]
    # Without the adapter the numbers are others.
    zero = [json.loads(line) for line in (out / "predictions" / "zero_shot.jsonl").read_text().splitlines()]
    assert not near(ours, _log_shares(zero), 1e-3)


def test_an_untied_head_comes_back(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_models("gpt2"), task_file, "last-layer", "adapter.untie_head=true", "tuning.lr=0.02")
    run(recipe, tmp_path / "run")
    adapter = read_adapter(tmp_path / "run")
    backbone = adapter.load(dtype="float32", device="cpu")
    head, table = (part.weight for part in (backbone.model.lm_head, backbone.model.transformer.wte))
    assert torch.equal(head, adapter.tensors["lm_head.weight"])
    assert not torch.equal(head, table)
    told = list(predict(adapter, _rows(task_file), backbone=backbone))
    ours = torch.tensor([p.probabilities for p in told], dtype=torch.float64).log()
    assert near(ours, _log_shares(predictions(tmp_path / "run")), 1e-5)


def _log_shares(lines: list[dict[str, Any]]) -> torch.Tensor:
    """Log-probabilities of the answers among each other, `[N, A]`, as they were reported."""
    return torch.log_softmax(torch.tensor([line["scores"] for line in lines], dtype=torch.float64), 1)


def _rows(task_file: Path) -> list[dict[str, str]]:
    with (task_file.parent / "validation.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def saved(tiny_models: Models, task_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapters") / "run"
    run(recipe_of(tiny_models("gpt2"), task_file, "lora"), out)
    return out / "adapter"


def copy(saved: Path, to: Path) -> Path:
    to.mkdir()
    for file in saved.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_another_backbone_is_refused(saved: Path, tiny_models: Models) -> None:
    with pytest.raises(SoftpruneError, match="expected: the backbone that the adapter was trained on"):
        read_adapter(saved).load(name=str(tiny_models("llama")))


def test_a_backbone_that_reads_without_it_is_refused(saved: Path, tiny_models: Models) -> None:
    """It would answer as the bare model, and nobody would know."""
    adapter, other, rows = read_adapter(str(saved)), read_adapter(saved), [{"text": "a slow joy"}]
    with pytest.raises(SoftpruneError, match=r"(?s)found:    \S+gpt2 without it\ndo:       pass what adapter.load"):
        list(predict(adapter, rows, backbone=fresh(tiny_models("gpt2"))))
    with pytest.raises(SoftpruneError, match="found:    another adapter's"):
        list(predict(adapter, rows, backbone=other.load(dtype="float32")))
    with pytest.raises(SoftpruneError, match=r"pass backbone=adapter.load\(\)"):
        list(predict(adapter, rows))
    assert len(list(predict(adapter, rows, backbone=adapter.load(dtype="float32")))) == 1


def test_no_ticket_is_taken_for_an_adapter(saved: Path) -> None:
    for place in (saved, saved.parent):
        with pytest.raises(SoftpruneError, match=r"(?s)expected: a ticket\nfound:    an adapter in"):
            Ticket.load(place)


@pytest.mark.parametrize("dtype", ["bool", "complex64", "int64"])
def test_tensors_that_are_no_numbers_are_refused(saved: Path, tmp_path: Path, dtype: str) -> None:
    place = copy(saved, tmp_path / "adapter")
    tensors = load_file(place / "adapter.safetensors")
    first = sorted(tensors)[0]
    save_file(tensors | {first: tensors[first].to(getattr(torch, dtype))}, place / "adapter.safetensors")
    with pytest.raises(SoftpruneError, match="a whole adapter in") as caught:
        read_adapter(place)
    assert first in caught.value.found


def test_tensors_of_float8_are_widened(saved: Path, tmp_path: Path) -> None:
    place = copy(saved, tmp_path / "adapter")
    tensors = load_file(place / "adapter.safetensors")
    save_file({name: value.to(torch.float8_e5m2) for name, value in tensors.items()}, place / "adapter.safetensors")
    assert {value.dtype for value in read_adapter(place).tensors.values()} == {torch.float32}


def test_tensors_of_another_shape_are_refused(saved: Path, tmp_path: Path) -> None:
    place = copy(saved, tmp_path / "adapter")
    tensors = load_file(place / "adapter.safetensors")
    first = sorted(tensors)[0]
    save_file(tensors | {first: torch.zeros(3)}, place / "adapter.safetensors")
    with pytest.raises(SoftpruneError, match="expected: the tensors of a lora adapter") as caught:
        read_adapter(place).load(dtype="float32")
    assert first in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": 2}, "no document of schema 1"),
        ({"plan": {"method": "lora"}}, "tokens"),
        ({"family": "other"}, "an unknown method or family"),
        ({"max_length": "long"}, "max_length"),
    ],
)
def test_a_document_that_isnt_whole_is_refused(saved: Path, tmp_path: Path, change: dict[str, Any], told: str) -> None:
    place = copy(saved, tmp_path / "adapter")
    document = json.loads((place / "adapter.json").read_text())
    (place / "adapter.json").write_text(json.dumps(document | change))
    with pytest.raises(SoftpruneError, match="expected: a whole adapter") as caught:
        read_adapter(place)
    assert told in str(caught.value)


def test_there_is_none(tmp_path: Path) -> None:
    assert not holds_adapter(tmp_path)
    with pytest.raises(SoftpruneError, match="a whole adapter"):
        read_adapter(tmp_path)
