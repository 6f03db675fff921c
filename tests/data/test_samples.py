"""The samples that ship are rows of the fixtures, and what the statistics say of them is right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from softprune.data import load_task, task_names
from softprune.data.data_statistics import compute_statistics, survey
from softprune.data.sources import find_layout
from softprune.data.task import SAMPLES, load_sample
from softprune.errors import SoftpruneError

OFFICIAL = Path(__file__).parent.parent / "fixtures" / "tasks" / "official"
READ = [task for task in task_names() if task != "demo"]


@pytest.mark.parametrize("name", READ)
def test_samples_are_rows_of_the_fixtures(name):
    task = load_task(name)
    rows = [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text().splitlines()]
    assert 2 <= len(rows) <= 3
    theirs = [located.row for located in find_layout(task.definition, OFFICIAL / name).rows("train")]
    assert [row for row in rows if row not in theirs] == []
    assert {example.text for example in load_sample(task)} <= {
        example.text for example in task.load(OFFICIAL / name).train
    }


def test_only_tasks_that_ship_have_one(tmp_path):
    assert load_sample(load_task("demo")) == ()
    text = (SAMPLES.parent / "definitions" / "rte.yaml").read_text()
    (tmp_path / "rte.yaml").write_text(text)
    assert load_sample(load_task(tmp_path / "rte.yaml")) == ()
    assert {path.stem for path in SAMPLES.glob("*.jsonl")} == set(READ)


def test_statistics_by_hand():
    task = load_task("cb")
    found = compute_statistics(task, task.load(OFFICIAL / "cb"))
    assert (found.id, found.kind, found.metric) == ("cb", "NLI", "accuracy")
    assert found.sizes == {"train": 4, "dev": 4, "validation": 4}
    assert found.shares == {"entailment": 0.5, "contradiction": 0.25, "neutral": 0.25}
    assert found.constant == 0.5
    assert found.words == (13 + 13 + 14 + 13) / 4
    multirc = load_task("multirc")  # 4 of 8 options are right: always "yes" has precision 1/2, recall 1
    assert compute_statistics(multirc, multirc.load(OFFICIAL / "multirc")).constant == pytest.approx(2 / 3)
    wsc = load_task("wsc")
    assert compute_statistics(wsc, wsc.load(OFFICIAL / "wsc")).reported == "dev"


def test_a_folder_of_many_tasks_and_of_one(tmp_path):
    tasks = [load_task(name) for name in READ]
    for folder in ("superglue/RTE", "imdb"):
        shutil.copytree(OFFICIAL / Path(folder).name.lower(), tmp_path / folder)
    many = survey(tasks, tmp_path)
    assert [each.id for each in many.found] == ["imdb", "rte"]
    assert set(many.absent) == set(READ) - {"imdb", "rte"}
    assert many.errors == ()
    one = survey(tasks, tmp_path / "imdb")  # in the hub's layout of ag_news, too, as far as anyone can tell
    assert [each.id for each in one.found] == ["imdb"]
    assert len(survey([load_task("ag_news")], tmp_path / "imdb").found) == 1


def test_broken_data_in_a_folder_of_its_own_is_told(tmp_path):
    shutil.copytree(OFFICIAL / "rte", tmp_path / "RTE")
    (tmp_path / "RTE" / "val.jsonl").write_text("{}\n")
    found = survey([load_task("rte"), load_task("cb")], tmp_path)
    assert (found.found, found.absent) == ((), ("cb",))
    assert 'no "premise"' in str(found.errors[0])


def test_nothing_to_report_on():
    task = load_task("rte")
    splits = task.load(OFFICIAL / "rte")
    from dataclasses import replace

    with pytest.raises(SoftpruneError, match="a validation or development set"):
        compute_statistics(task, replace(splits, dev=None, validation=None))
