"""docs/tasks.md tells the truth: its example loads, its keys are all there are, its table is what ships."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from softprune.data import load_task, task_names
from softprune.data.definition import (
    ChatSpec,
    Definition,
    FieldSpec,
    FileSource,
    GeneratedSource,
    HubSource,
    Sources,
)

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"^```yaml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE).group(1)


def test_the_example_is_short_and_loads(tmp_path):
    assert len(EXAMPLE.splitlines()) <= 11
    name, data = re.search(r"# (\S+), beside (\S+) with the columns text, team", EXAMPLE).groups()
    answers = yaml.safe_load(EXAMPLE)["answers"]
    rows = "".join(f"message {i},{answers[i % 3]}\n" for i in range(60))
    (tmp_path / data).write_text(f"text,team\n{rows}")
    (tmp_path / name).write_text(EXAMPLE)
    splits = load_task(tmp_path / name).load()
    assert (len(splits.train), len(splits.validation)) == (48, 12)


@pytest.mark.parametrize("model", [Definition, ChatSpec, FieldSpec, Sources, FileSource, HubSource, GeneratedSource])
def test_every_key_is_told(model):
    told = set(re.findall(r"`(?:\w+\.)*(\w+)`", PAGE[PAGE.index("### Chat models") :]))
    assert set(model.model_fields) - told - {"sources"} == set()


def rows():
    """The cells of each task's line in the table."""
    found = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE[: PAGE.index("Look at a task")], flags=re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in found}


def test_the_table_has_every_task():
    assert set(rows()) == set(task_names())


@pytest.mark.parametrize("name", task_names())
def test_the_table_is_what_ships(name):
    definition = load_task(name).definition
    template, answers, metric, _, hub = rows()[name]
    written = definition.template.removesuffix("{mask}").strip()
    for field, spec in definition.fields.items():
        written = written.replace(f"{{{field}}}", f"{{{field}}}{spec.append}")
    assert template == f"`{written}`".replace("\n", r"\n")
    if definition.score == "sum":
        assert answers == ", ".join(definition.answers)
    assert metric.lower().startswith(definition.metric.lower())
    source = definition.sources.hub
    places = () if source is None else (source, *source.elsewhere.values())
    named = [" ".join(filter(None, (f"`{place.repository}`", place.config))) for place in places]
    assert hub == (", ".join(named) or "–")
    assert source is None or not source.verified
