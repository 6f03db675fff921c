"""A first task YAML from a file: what is guessed, and that it loads as it is."""

from __future__ import annotations

import csv
import itertools
import json
from decimal import Decimal

import pytest

from softprune.data import load_task
from softprune.data.scaffold import guess, write_task
from softprune.errors import SoftpruneError

TEAMS = ("billing", "shipping", "returns")
ROWS = [
    {
        "id": i,
        "Message (en)": f"please help with number {i}",
        "subject": f"about {i}",
        "team": TEAMS[i % 3],
        "stars": i % 5,
    }
    for i in range(60)
]


@pytest.fixture
def file(tmp_path):
    return written(tmp_path / "mail.csv", ROWS)


def written(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def made(file, validation=None, out=None, **asked):
    out = out or file.with_suffix(".yaml")
    splits = write_task(guess(file, validation, **asked), out, file, validation)
    return load_task(out).definition, splits


def test_guesses_label_texts_and_answers(file):
    found = guess(file)
    assert found.label.name == "team"
    assert [column.name for column in found.texts] == ["Message (en)", "subject"]
    assert found.template == "Message en: {Message_en} subject: {subject} team: {mask}"
    assert tuple(found.answers) == TEAMS
    assert found.others == ("id", "stars")


def test_what_it_writes_loads_and_explains_itself(file):
    definition, splits = made(file)
    assert (len(splits.train), len(splits.validation)) == (48, 12)
    assert definition.sources.file.columns == {"Message_en": "Message (en)"}
    assert splits.train[0].text.startswith("Message en: please help with number")
    lines = file.with_suffix(".yaml").read_text().splitlines()
    keys = [line.split(":")[0].strip() for line in lines if not line.lstrip().startswith("#")]
    assert keys == [
        *("title", "instruction", "fields", "template", "answers", "gold", "sources", "file"),
        *("files", "held_out", "columns"),
    ]
    explained = [before.lstrip().startswith("#") for before, line in itertools.pairwise(lines) if "#" not in line]
    assert sum(explained) == len(keys) - 2  # all but `sources:` and `file:`


def test_what_is_asked_for_comes_first(file):
    definition, splits = made(file, text=["subject"], label="stars")
    assert tuple(definition.fields) == ("subject",)
    assert definition.answers == ("stars 0", "stars 1", "stars 2", "stars 3", "stars 4")
    assert definition.sources.file.labels["3"] == "stars 3"
    assert "Numbers say nothing" in file.with_suffix(".yaml").read_text()
    assert splits.train[0].answers == definition.answers


def test_a_named_label_goes_before_one_with_fewer_values(tmp_path):
    rows = [{"text": f"a text {i}", "flag": "ab"[i % 2], "Label": "xyz"[i % 3]} for i in range(30)]
    assert guess(written(tmp_path / "a.csv", rows)).label.name == "Label"
    few = [{"text": row["text"], "flag": row["flag"], "more": row["Label"]} for row in rows]
    assert guess(written(tmp_path / "a.csv", few)).label.name == "flag"


def test_a_validation_file_counts_for_the_labels(file):
    other = written(file.with_name("more.csv"), [*ROWS[:9], ROWS[0] | {"team": "legal"}])
    definition, splits = made(file, other)
    assert definition.answers == (*TEAMS, "legal")
    assert (len(splits.train), len(splits.validation)) == (60, 10)
    assert definition.sources.file.held_out is None


def test_awkward_labels_stay_what_they_are(tmp_path):
    labels = ["yes", "no", "{x}", "a, b", "null", " x"]
    rows = [{"text": f"a text {i}", "label": labels[i % 6]} for i in range(36)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    definition, splits = made(path)
    assert definition.answers == ("yes", "no", "{{x}}", "a, b", "null", "x")
    assert splits.train[0].answers == ("yes", "no", "{x}", "a, b", "null", "x")


def test_columns_that_read_alike_get_names_of_their_own(tmp_path):
    texts = dict.fromkeys(("a_b_3", "a_b_4", "a_b_2", "a b", "a-b", "a_b", "mask"), "two words")
    rows = [texts | {"label": "xy"[i % 2]} for i in range(8)]
    definition, _ = made(written(tmp_path / "a.csv", rows))
    assert set(definition.fields) == {"a_b_3", "a_b_4", "a_b_2", "a_b", "a_b_5", "a_b_6", "mask_2"}


def test_truths_are_yes_and_no(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"a text {i}", "right": i % 2 == 0}) + "\n" for i in range(20)))
    definition, splits = made(path)
    assert definition.sources.file.labels == {"false": "no", "true": "yes"}
    assert sorted(splits.train[0].answers) == ["no", "yes"]
    assert "Numbers say nothing" not in path.with_suffix(".yaml").read_text()


def test_the_yaml_may_lie_elsewhere(file, tmp_path):
    (tmp_path / "tasks").mkdir()
    definition, _ = made(file, out=tmp_path / "tasks" / "mail.yaml")
    assert definition.sources.file.files["train"] == str(file)
    definition, _ = made(file, out=tmp_path / "mail.yml")
    assert definition.sources.file.files["train"] == "mail.csv"


def test_nothing_is_overwritten(file):
    made(file)
    before = file.with_suffix(".yaml").read_bytes()
    with pytest.raises(SoftpruneError, match="is there already"):
        made(file, label="stars")
    assert file.with_suffix(".yaml").read_bytes() == before


def test_a_task_that_would_not_load_is_not_left_behind(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": text, "label": label}) + "\n" for text, label in (("a", "x"), ("b", "y"), ("c", "x"))
        )
    )
    path.write_text(path.read_text() + '{"text": null, "label": "x"}\n')
    with pytest.raises(SoftpruneError, match=r"text in text"):
        made(path, text=["text"])
    assert list(tmp_path.glob("*.yaml")) == []


@pytest.mark.parametrize(
    ("rows", "asked", "told"),
    [
        ([{"a": "x y", "b": f"{i}"} for i in range(60)], {}, "a label column of 2 to 50"),
        ([{"a": f"x y {i}", "label": "one"} for i in range(9)], {}, "1 in label"),
        ([{"a": f"x y {i}", "label": f"l {i}"} for i in range(60)], {"label": "label"}, "more than 50 in label"),
        ([{"a": i, "label": "ab"[i % 2]} for i in range(9)], {}, "a column of texts beside the label"),
        ([{"text;label": "a;b"} for i in range(9)], {}, "semicolons in"),
        ([{"a": "x y", "label": "ab"[i % 2]} for i in range(9)], {"label": "lable"}, 'did you mean "label"'),
        ([{"a": "x y", "label": "ab"[i % 2]} for i in range(9)], {"text": ["b"]}, "a known column"),
        ([{"a": "x y", "label": ["a", "b", ""][i % 3]} for i in range(9)], {}, "line 4"),
        ([{"a": "x y", "label": ["a", "b", "a "][i % 3]} for i in range(9)], {}, "more than blanks"),
    ],
)
def test_what_makes_no_task_is_told(tmp_path, rows, asked, told):
    with pytest.raises(SoftpruneError) as caught:
        guess(written(tmp_path / "a.csv", rows), **asked)
    assert told in str(caught.value)


def lines(path, texts, labels):
    path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in zip(texts, labels, strict=True)))
    return path


def test_a_missing_text_keeps_its_column_and_is_told(tmp_path):
    texts = ["some words", None, *["more words"] * 4]
    path = lines(tmp_path / "a.jsonl", texts, "xyxyxy")
    assert [column.name for column in guess(path).texts] == ["text"]
    with pytest.raises(SoftpruneError) as caught:
        made(path)
    assert (caught.value.expected, caught.value.found) == ("text in text", f"none in {path}, line 2")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_nan_is_no_class(tmp_path, name):
    labels = [0, 1, float("nan"), 0, 1, 0]
    rows = [{"text": f"some words {i}", "label": label} for i, label in enumerate(labels)]
    path = tmp_path / name
    written(path, rows) if name == "a.csv" else lines(path, [row["text"] for row in rows], labels)
    with pytest.raises(SoftpruneError) as caught:
        guess(path)
    assert caught.value.expected == "a label in every row of label"
    assert f"line {4 if name == 'a.csv' else 3}" in caught.value.found
    words = [{"text": f"some words {i}", "label": ("nan", "gran")[i % 2]} for i in range(6)]
    assert set(guess(written(tmp_path / "b.csv", words)).answers) == {"nan", "gran"}


def test_a_label_of_decimals_is_one_of_numbers(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    rows = [{"text": f"some words {i}", "label": Decimal("0.50") + i % 2, "dates": [i]} for i in range(12)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    definition, splits = made(tmp_path / "a.parquet", label="label")
    assert definition.answers == ("label 0.5", "label 1.5")
    assert len(splits.train) + len(splits.validation) == 12
    with pytest.raises(SoftpruneError, match="lists, objects, dates or other values in dates"):
        guess(tmp_path / "a.parquet", label="dates")


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.csv").write_text("")
    for name, told in (("a.csv", "rows to learn from"), ("b.csv", "no file"), ("a.xlsx", r"ends in \.jsonl")):
        with pytest.raises(SoftpruneError, match=told):
            guess(tmp_path / name)
