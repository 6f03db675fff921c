"""Your own data: a short YAML beside a CSV, JSON lines or Parquet file, and what it tells when it is wrong."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest

from softprune.data import load_task, select_sets
from softprune.data.definition_loading import check_definition
from softprune.errors import ManyErrors, SoftpruneError
from softprune.types import Chat

SHORT = """
fields: [text]
template: "{text} team: {mask}"
answers: [billing, shipping, returns]
gold: team
sources:
  file:
    files: {train: messages.csv}
    held_out: 0.2
"""
ANSWERS = ("billing", "shipping", "returns")
ROWS = [{"text": f"message {i}", "team": ANSWERS[i % 3]} for i in range(60)]


def csv_of(rows):
    return "\n".join(["text,team", *(f"{row['text']},{row['team']}" for row in rows)]) + "\n"


@pytest.fixture
def own(tmp_path):
    """A folder with the short YAML and its CSV; called with a text, it writes that as the YAML."""
    (tmp_path / "messages.csv").write_text(csv_of(ROWS))

    def task(text=SHORT, name="My Messages.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return load_task(path)

    return task


def mistakes(task, text):
    with pytest.raises(SoftpruneError) as caught:
        task(text)
    return str(caught.value)


def test_the_short_form_has_honest_defaults(own):
    definition = own().definition
    assert (definition.id, definition.version, definition.title, definition.instruction) == (
        "my_messages",
        1,
        "my_messages",
        "",
    )
    assert (definition.metric, definition.score) == ("accuracy", "sum")
    assert definition.fields["text"].shortenable
    assert definition.sources.file.labels == {answer: answer for answer in ANSWERS}
    assert definition.sources.file.verified


def test_metric_and_score_follow_from_what_is_there(own):
    text = SHORT.replace("gold: team", "gold: team\npositive: billing")
    assert own(text).definition.metric == "f1"
    assert own(text).metric.positive == 0
    text = SHORT.replace("answers: [billing,", 'answers: ["{text}",').replace(
        "held_out", "labels: {b: shipping}\n    held_out"
    )
    assert own(text).definition.score == "mean"
    text = SHORT.replace("answers: [billing,", 'answers: ["{{text}}",')
    assert own(text).definition.score == "sum"


def test_held_out_is_stratified_fixed_and_said(own):
    splits = own().load()
    assert (len(splits.train), len(splits.validation)) == (48, 12)
    assert Counter(example.gold for example in splits.validation) == {0: 4, 1: 4, 2: 4}
    assert not {example.id for example in splits.train} & {example.id for example in splits.validation}
    assert "12 of the 60 training examples" in splits.notes[0]
    runs = [select_sets(splits, seed=seed) for seed in (0, 1)]
    assert runs[0].report == runs[1].report == splits.validation
    assert runs[0].select != runs[1].select
    assert "held_out: 0.2" in runs[0].description


@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.gz", "csv.gz", "parquet"])
def test_every_format_by_its_ending(own, tmp_path, ending):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    path = tmp_path / f"messages.{ending}"
    if ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow.parquet")
        pyarrow.write_table(pytest.importorskip("pyarrow").Table.from_pylist(ROWS), path)
    else:
        text = csv_of(ROWS) if "csv" in ending else lines
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    assert own(SHORT.replace("messages.csv", path.name)).load().train == own().load().train


def test_absolute_paths_and_another_folder(own, tmp_path):
    absolute = own(SHORT.replace("messages.csv", str(tmp_path / "messages.csv")))
    assert len(absolute.load().train) == 48
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "messages.csv").write_text(csv_of(ROWS[:30]))
    assert len(own().load(elsewhere).train) == 24


def test_a_file_that_is_named_must_be_there(own):
    text = SHORT.replace("held_out: 0.2", "").replace("messages.csv", "messages.csv, validation: valid.csv")
    with pytest.raises(SoftpruneError, match=r"no validation: valid\.csv in .*") as caught:
        own(text).load()
    assert "relative to its folder" in caught.value.do


def test_mistakes_of_the_short_form_come_together(own):
    text = SHORT.replace("{text} team", "{txt} team").replace("train: messages.csv", "validation: notes.txt")
    told = mistakes(own, text.replace("gold: team", "gold: team\nmetric: acuracy\nversion: 0"))
    assert "greater than or equal to 1" in told
    told = mistakes(own, text.replace("gold: team", "gold: team\nmetric: acuracy"))
    for part in ("{txt}", 'did you mean "accuracy"', "a file to train on", "one validation set", "notes.txt"):
        assert part in told


def test_something_to_report_on_is_needed(own):
    told = mistakes(own, SHORT.replace("    held_out: 0.2\n", ""))
    assert "held_out: 0.2" in told
    assert "My Messages.yaml" in told
    assert "less than 1" in mistakes(own, SHORT.replace("0.2", "1.5"))


def test_answers_with_field_names_need_labels(own):
    told = mistakes(own, SHORT.replace("[billing,", '["{text}",'))
    assert "labels" in told
    assert "field names" in told


def test_labels_that_lead_nowhere_and_answers_given_twice(own):
    assert "b -> bills" in mistakes(own, SHORT + "    labels: {b: bills}\n")
    assert "`answers` that differ" in mistakes(own, SHORT.replace("returns]", "billing]"))


@pytest.mark.parametrize(
    ("text", "keys", "found"),
    [
        (SHORT.replace("[billing, shipping, returns]", "[no, yes]"), "`answers.0`, `answers.1`", "false, true"),
        (SHORT.replace("[billing, shipping, returns]", "[1, 2]"), "`answers.0`, `answers.1`", "1, 2"),
        (SHORT + "    labels: {a: on}\n", "`sources.file.labels.a`", "true"),
        (SHORT + "positive: off\n", "`positive`", "false"),
    ],
)
def test_words_that_yaml_takes_for_something_else(own, text, keys, found):
    with pytest.raises(SoftpruneError) as caught:
        own(text)
    assert not isinstance(caught.value, ManyErrors)
    assert caught.value.expected == f"text in {keys}"
    assert caught.value.found.startswith(found)
    assert "quotes" in caught.value.do
    assert ("YAML reads yes" in caught.value.found) == (found[0] not in "12")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SHORT + "gold: label\n", "gold is given twice"),
        (SHORT.replace("[text]", "[text, text]"), "text is there twice"),
        (SHORT.replace("gold:", "1: 2\ngold:"), "Keys should be strings"),
        (SHORT.replace("files: {train: messages.csv}", ""), "`sources.file.files`"),
        (SHORT.replace("    held_out", "    helt_out"), 'did you mean "held_out"'),
        ("[" * 5000, "nested too deeply"),
        ("", "as a mapping of keys"),
    ],
)
def test_other_slips_are_told(own, text, told):
    assert told in mistakes(own, text)


def test_labels_that_yaml_took_for_truths_are_explained(own, tmp_path):
    (tmp_path / "messages.csv").write_text("text,team\na b,yes\n")
    task = own(SHORT + "    labels: {yes: billing, no: shipping}\n")
    with pytest.raises(SoftpruneError, match=r'(?s)"yes" in .*line 2.*put yes, no, on and off in quotes'):
        task.load()
    (tmp_path / "messages.csv").write_text("text,team\na b,maybe\n")
    with pytest.raises(SoftpruneError, match=r"(?s)correct the label, or add it"):
        task.load()


def test_the_generated_task_takes_no_data(tmp_path):
    with pytest.raises(SoftpruneError, match=r"(?s)demo, which is generated.*leave --data out"):
        load_task("demo").load(tmp_path)


def test_a_conversation_is_true_or_says_more(own):
    assert own().definition.chat is None
    assert "chat" not in own().definition.model_dump(mode="json")  # as before there were conversations
    assert own().load().train[0].chat is None
    plain = own(SHORT + "chat: true\n")
    assert plain.load().train[0].chat == Chat()
    assert own(SHORT + "chat: false\n").definition.chat is None
    more = own(SHORT + "chat: {system: be brief, place: system, options: {enable_thinking: false}}\n")
    assert more.load().train[0].chat == Chat("be brief", "system", (("enable_thinking", False),))
    again = check_definition(more.definition.model_dump(mode="json"), more.folder)
    assert again == more.definition


@pytest.mark.parametrize(
    ("chat", "message"),
    [("{sistem: hi}", 'did you mean "system"'), ("{place: end}", "`chat.place`"), ("maybe", "`chat`")],
)
def test_a_conversation_s_mistakes(own, chat, message):
    assert message in mistakes(own, f"{SHORT}chat: {chat}\n")
