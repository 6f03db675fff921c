"""Tasks whose texts are written: how one is defined, what is wrong with one, how its rows read, and its three sets."""

from __future__ import annotations

import json
import lzma

import pytest

from softprune.data import load_task, select_sets
from softprune.data.data_statistics import compute_statistics
from softprune.data.metrics import Loss
from softprune.data.row_files import Located, RowWriter
from softprune.data.scaffold import guess, write_task
from softprune.data.sources import choose_source
from softprune.data.template import unanswered_rows
from softprune.errors import ManyErrors, SoftpruneError

TASK = """
fields: [article]
template: "{article} TL;DR: {mask}"
target: summary
sources:
  file:
    files: {train: posts.jsonl.xz, validation: posts.jsonl.xz}
    where: {train: {part: 1}, validation: {part: 2}}
"""
ROWS = [
    {
        "part": 1 + i // 8,
        "article": f"Row {i} is here. It is long. It ends. It ended {i}.",
        "summary": f"About row {i}.",
    }
    for i in range(12)
]


@pytest.fixture
def task_file(tmp_path):
    with RowWriter(tmp_path / "posts.jsonl.xz") as writer:
        writer.write(ROWS)
    (tmp_path / "posts.yaml").write_text(TASK)
    return tmp_path / "posts.yaml"


def test_the_rest_is_filled_in(task_file):
    task = load_task(task_file)
    definition = task.definition
    assert (definition.targets, definition.metric, definition.answers) == ("text", "rougeL", ("{summary}",))
    assert definition.is_generation
    assert task.metric.name == "rougeL"
    assert isinstance(task.choice, Loss)
    assert load_task("rte").choice.name == "accuracy"


def test_rows_of_a_split_in_one_packed_file(task_file):
    splits = load_task(task_file).load()
    assert (len(splits.train), len(splits.validation)) == (8, 4)
    first, ninth = splits.train[0], splits.validation[0]
    assert (first.answers, first.gold, first.is_generation) == (("About row 0.",), 0, True)
    assert first.text == "Row 0 is here. It is long. It ends. It ended 0. TL;DR:"
    assert (ninth.answers, ninth.index) == (("About row 8.",), 0)


def test_a_row_without_the_column_that_tells_splits_apart(task_file):
    task_file.write_text(TASK.replace("part: 1", "split: 1"))
    with pytest.raises(SoftpruneError, match=r'no "split" in .*line 1'):
        load_task(task_file).load()


def test_a_broken_xz_archive(task_file):
    packed = task_file.with_name("posts.jsonl.xz")
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(SoftpruneError, match="an xz archive at"):
        load_task(task_file).load()
    packed.write_bytes(lzma.compress(b'{"part": 1, "article": "a", "summary": " "}'))
    with pytest.raises(SoftpruneError, match="a text in summary, to be written"):
        load_task(task_file).load()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("target: summary", "targets: text", "`target` beside `targets: text`"),
        ("target: summary", "answers: [one]", "at least 2 to choose from"),
        ("target: summary", "target: summary\nanswers: [a, b]", "`target` (a text to write) or `answers`"),
        ("target: summary", "target: summary\ntargets: answers", "`targets: text` beside `target`"),
        ("target: summary", "target: article", "a `target` that is no field of the input"),
        ("target: summary", "target: summary\nmetric: f1", "a metric of texts (rouge1, rouge2, rougeL, exact_match)"),
        ("target: summary", "target: summary\ngold: part", "no `gold` beside `target`"),
        ("target: summary", "target: summary\npositive: a", "no `positive` beside `target`"),
        ("target: summary", 'target: "{summary}"', "one plain name, without braces"),
        ("target: summary", "answers: [a, b]\nmetric: rougeL", "a metric of answers"),
        ("target: summary", "target: summary\nmetric: rouge", 'did you mean "rouge'),
        ("    where:", "    labels: {a: b}\n    where:", "no labels in `sources.file` beside `target`"),
        ("validation: {part: 2}", "dev: {part: 2}", "`sources.file.where` for splits with a file"),
    ],
)
def test_every_mistake_is_told(task_file, old, new, told):
    text = TASK.replace(old, new)
    assert text != TASK
    task_file.write_text(text)
    with pytest.raises((SoftpruneError, ManyErrors)) as caught:
        load_task(task_file)
    assert told in str(caught.value)


def test_new_rows_need_no_text_of_their_own(task_file):
    definition = load_task(task_file).definition
    rows = [Located({"article": "A thing."}, "row 0"), Located({"article": "A thing.", "summary": "It."}, "row 1")]
    source = choose_source(definition, rows[0])
    without, told = unanswered_rows(definition, source, rows)
    assert (without.example.answers, without.example.gold) == (("",), -1)
    assert (told.example.answers, told.example.gold) == (("It.",), 0)


def test_three_sets_without_labels(task_file):
    sets = select_sets(load_task(task_file).load(), shots=6, fraction=0.34, seed=1)
    assert (len(sets.train), len(sets.select), len(sets.report)) == (4, 2, 4)
    assert not {e.index for e in sets.train} & {e.index for e in sets.select}


def test_statistics(task_file):
    task = load_task(task_file)
    found = compute_statistics(task, task.load())
    assert (found.shares, found.target_words) == ({}, 3)
    # The lead's 9 words (row i is here it is long it ends) and the summary's 3 share "row i" in order: 2 * 2 / 12.
    assert found.constant == pytest.approx(1 / 3)


def test_a_first_yaml_of_a_file(tmp_path):
    file = tmp_path / "news.jsonl"
    file.write_text("".join(json.dumps(row | {"title": f"On {i}", "id": i}) + "\n" for i, row in enumerate(ROWS)))
    found = guess(file, target="summary")
    assert (found.label.name, found.fields, found.is_generation) == ("summary", ("article",), True)
    assert found.template == "{article} TL;DR: {mask}"
    assert not found.to_be_edited
    splits = write_task(found, tmp_path / "news.yaml", file)
    assert (len(splits.train), len(splits.validation)) == (10, 2)
    assert "drawn at random with the fixed seed" in splits.notes[0]
    text = (tmp_path / "news.yaml").read_text()
    assert "target: summary" in text
    assert "answers" not in text
    several = guess(file, text=["title", "article"], target="summary")
    assert several.template == "title: {title} article: {article} TL;DR: {mask}"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"target": "sumary"}, 'did you mean "summary"'),
        ({"target": "part"}, "a column of texts to be written"),
        ({"target": "summary", "label": "part"}, "a label to choose, or a text to write"),
        ({"target": "summary", "text": ["summary"]}, "texts to read beside the one to be written"),
    ],
)
def test_columns_that_can_not_be_written(tmp_path, asked, told):
    file = tmp_path / "news.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.raises(SoftpruneError, match=told):
        guess(file, **asked)
    (tmp_path / "gap.jsonl").write_text('{"article": "a b", "summary": ""}\n')
    with pytest.raises(SoftpruneError, match="a text in every row of summary"):
        guess(tmp_path / "gap.jsonl", target="summary")
