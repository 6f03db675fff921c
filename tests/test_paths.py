"""Whatever takes a path takes text too: every public function, by its annotations and by calling it."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import softprune
from softprune import Ticket, load_backbone, load_task, predict, read_adapter
from softprune import report as report_room
from softprune.adapters import adapter_io
from softprune.config import Recipe, load_config
from softprune.data.task import Task
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.prompts import prompt_io
from softprune.report import comparison_table, write_report
from softprune.token_pruning.model import TokenModel

CLASSES = (Ticket, Task, Backbone, TokenModel, adapter_io.SavedAdapter)
ROOMS = (report_room, prompt_io, adapter_io)


def public_functions() -> dict[str, Callable[..., Any]]:
    functions = {}
    for name in softprune.__all__:
        if inspect.isfunction(getattr(softprune, name)):
            functions[name] = getattr(softprune, name)
    for room in ROOMS:
        for name, member in inspect.getmembers(room, inspect.isfunction):
            if not name.startswith("_") and member.__module__ == room.__name__:
                functions[f"{room.__name__}.{name}"] = member
    for owner in CLASSES:
        for name, member in inspect.getmembers(owner, inspect.isroutine):
            if not name.startswith("_") and (member.__module__ or "").startswith("softprune."):
                functions[f"{owner.__name__}.{name}"] = member
    return functions


@pytest.mark.parametrize("name", public_functions())
def test_a_path_may_be_text(name: str) -> None:
    for parameter in inspect.signature(public_functions()[name]).parameters.values():
        annotation = str(parameter.annotation)
        if re.search(r"\bPath\b", annotation):
            assert re.search(r"\bstr\b", annotation), f"{parameter.name}: {annotation}"


def test_the_walk_sees_paths() -> None:
    functions = public_functions()
    assert {"Task.load", "Ticket.save", "report.write_report"} <= {n.removeprefix("softprune.") for n in functions}
    assert typing.get_type_hints(Task.load)["data"] == str | Path | None


@pytest.mark.parametrize(
    "call",
    [
        lambda place: load_task("trec").load(place),
        lambda place: load_task("cb+rte").load(place),
        lambda place: load_task(f"{place}/task.yaml"),
        lambda place: load_backbone(place),
        lambda place: Ticket.load(place),
        lambda place: read_adapter(place),
        lambda place: TokenModel.load(place),
        lambda place: load_config(Recipe, f"{place}/recipe.yaml"),
        lambda place: write_report(place),
        lambda place: comparison_table(place),
        lambda place: prompt_io.read_prompt(place),
        lambda place: prompt_io.load_mask(f"{place}/mask.safetensors"),
        lambda place: next(predict(read_adapter(place), [], backbone=place)),
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_missing_place_is_a_users_mistake_as_text_and_as_path(
    call: Callable[[Any], object], kind: type, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SoftpruneError):
        call(kind(tmp_path / "empty"))
