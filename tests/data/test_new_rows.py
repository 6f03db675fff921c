"""Rows to be answered, in every form that a task's own files have, with their labels and without."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from softprune.data import load_task, task_names
from softprune.data.row_files import Located, RowWriter, file_format, find_file, read_rows
from softprune.data.sources import choose_source, read_input
from softprune.data.template import unanswered_rows
from softprune.errors import SoftpruneError

OFFICIAL = Path(__file__).parent.parent / "fixtures" / "tasks" / "official"
AG_NEWS = load_task("ag_news").definition


def asked(definition, path):
    rows = list(read_input([definition], path))
    return list(unanswered_rows(definition, choose_source(definition, rows[0]), rows))


def without(value, name):
    """Nested values without a key of that name."""
    if isinstance(value, dict):
        return {key: without(item, name) for key, item in value.items() if key != name}
    return [without(item, name) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("task", [name for name in task_names() if name != "demo"])
def test_official_files_of_every_task(tmp_path, task):
    definition = load_task(task).definition
    source = definition.sources.official
    path = find_file(OFFICIAL / task, source.files["train"])
    whole = asked(definition, path)
    assert all(each.example.gold >= 0 for each in whole)
    right = source.columns.get(definition.target or definition.gold, definition.gold)
    if task == "metamath_gsm8k":  # its row reader renames this column
        right = "response"
    rows = [without(located.row, right) for located in read_rows(path, file_format(path), source.header)]
    bare = tmp_path / path.name
    if source.header is None:
        with RowWriter(bare) as writer:
            writer.write(rows)
    else:
        with bare.open("w", newline="") as stream:
            csv.writer(stream).writerows(row.values() for row in rows)
    found = asked(definition, bare)
    assert [each.example.segments for each in found] == [each.example.segments for each in whole]
    assert {each.example.gold for each in found} == {-1}


def test_a_header_line_still_names_the_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("description,title\nsecond,first\n")
    assert asked(AG_NEWS, path)[0].example.text == "first second topic:"
    path.write_text("text\nfirst second\n")
    assert asked(AG_NEWS, path)[0].example.text == "first second topic:"
    path.write_text("one,two,three,four\na,b,c,d\n")
    with pytest.raises(SoftpruneError) as caught:
        asked(AG_NEWS, path)
    assert "its columns are one, two, three, four" in caught.value.found


def test_own_files_without_header_or_ending(tmp_path):
    (tmp_path / "own.yaml").write_text(
        'fields: [words]\ntemplate: "{words} {mask}"\nanswers: [a, b]\nsources: {file: {format: csv, '
        "header: [l, w], columns: {words: w, label: l}, files: {train: own.txt}, held_out: 0.5}}\n"
    )
    definition = load_task(tmp_path / "own.yaml").definition
    path = tmp_path / "new.txt"
    path.write_text("b,some words\nb,some words\n")
    assert [(each.example.text, each.example.gold) for each in asked(definition, path)] == [("some words", 1)] * 2
    path.write_text("some words\nmore\n")
    assert [(each.example.text, each.example.gold) for each in asked(definition, path)][1] == ("more", -1)
    with pytest.raises(SoftpruneError, match="no file"):
        read_input([definition], tmp_path / "absent.csv")
    with pytest.raises(SoftpruneError, match=r"ends in \.jsonl"):
        read_input([load_task("rte").definition], path)


def test_rows_that_are_not_nested_as_multirc_is():
    definition = load_task("multirc").definition
    with pytest.raises(SoftpruneError):
        choose_source(definition, Located({"passage": "a text", "idx": 1}, "row 0"))


@pytest.mark.parametrize("label", [float("nan"), None])
def test_a_label_that_is_missing_is_no_class(tmp_path, label):
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "words", "label": label}) + "\n")
    (tmp_path / "own.yaml").write_text(
        'fields: [text]\ntemplate: "{text} {mask}"\nanswers: [None, nan]\n'
        "sources: {file: {files: {train: t.jsonl}, held_out: 0.5}}\n"
    )
    task = load_task(tmp_path / "own.yaml")
    assert asked(task.definition, tmp_path / "t.jsonl")[0].example.gold == -1
    with pytest.raises(SoftpruneError, match=r"none in .*t\.jsonl, line 1"):
        task.load()
    (tmp_path / "t.jsonl").write_text('{"text": "words", "label": "None"}\n{"text": NaN, "label": "nan"}\n')
    with pytest.raises(SoftpruneError) as caught:
        task.load()
    assert caught.value.found == f"none in {tmp_path / 't.jsonl'}, line 2"
    assert caught.value.expected == "text in text"
