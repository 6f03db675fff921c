"""Rows that lack a column: what can be done depends on whose task it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from softprune.data import load_task
from softprune.data.row_files import Located
from softprune.data.sources import choose_source
from softprune.errors import SoftpruneError

OFFICIAL = Path(__file__).parent.parent / "fixtures" / "tasks" / "official"
RTE = load_task("rte")


def test_a_tickets_task_cant_be_edited() -> None:
    row = {"premise": "a", "hypothesi": "b"}
    with pytest.raises(SoftpruneError) as caught:
        choose_source(RTE.definition, Located(row, "rows.jsonl, line 1"))
    assert caught.value.found == 'no "hypothesis" in rows.jsonl, line 1; its columns are premise, hypothesi'
    assert caught.value.do == 'did you mean "hypothesi"? rename the column'


def test_nor_can_a_task_that_ships_whose_data_breaks_off_later(tmp_path: Path) -> None:
    shutil.copytree(OFFICIAL / "rte", tmp_path / "RTE")
    with (tmp_path / "RTE" / "train.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(SoftpruneError) as caught:
        RTE.load(tmp_path)
    assert "train.jsonl, line " in caught.value.found
    assert "seem" not in caught.value.found
    assert caught.value.do == "rename the column"
