"""Every SuperGLUE template, held literally to Table 10 of the XPrompt paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from softprune.data import answered, load_task, task_names
from softprune.data.template import fill

OFFICIAL = Path(__file__).parent.parent / "fixtures" / "tasks" / "official"
TABLE_10 = {
    "boolq": (
        "hypothesis: is the blue kettle made of copper. premise: The blue kettle is a vessel of enamelled steel.",
        ("no", "yes"),
    ),
    "cb": (
        "hypothesis: the ferry had left. premise: Ida wondered whether the ferry had left.",
        ("entailment", "contradiction", "neutral"),
    ),
    "copa": (
        "choice1: It broke. choice2: It was filled with milk. premise: The jug fell from the shelf. question: effect",
        ("It broke.", "It was filled with milk."),
    ),
    "multirc": (
        "question: What did Tove carry? answer: Apples."
        " paragraph: Tove rowed to the island. She carried apples and a rope.",
        ("no", "yes"),
    ),
    "rte": (
        "sentence1: The bakery in Lund closed in May. sentence2: A bakery closed.",
        ("entailment", "contradiction"),
    ),
    "wic": (
        "sentence1: They sat on the bank of the stream. sentence2: The bank opens at nine. word: bank",
        ("no", "yes"),
    ),
    "wsc": (
        'Nils thanked Per because he had mended the net. "he" refers to "Nils" or another word ?',
        ("another word", "Nils"),
    ),
}
# Table 10's templates as printed, without the soft tokens in front; and which of our columns its names mean.
PRINTED = {
    "boolq": (
        'hypothesis: {"placeholder":"text_b", "shortenable":False, "post_processing": lambda x:x+"."} '
        'premise: {"placeholder":"text_a"} {"mask"}',
        {"text_a": "passage", "text_b": "question"},
    ),
    "cb": (
        'hypothesis: {"placeholder":"text_b","post_processing": lambda x:x+"."} premise: {"placeholder":"text_a"} '
        '{"mask"}',
        {"text_a": "premise", "text_b": "hypothesis"},
    ),
    "copa": (
        'choice1: {"meta":"choice1"} choice2: {"meta":"choice2"} premise: {"placeholder":"text_a"} '
        'question: {"meta":"question"} {"mask"}',
        {"text_a": "premise"},
    ),
    "multirc": (
        'question: {"placeholder":"text_b", "shortenable":False} '
        'answer: {"meta":"answer", "shortenable":False, "post_processing": lambda x:x+"."} '
        'paragraph: {"placeholder":"text_a"} {"mask"}',
        {"text_a": "paragraph", "text_b": "question"},
    ),
    "rte": (
        'sentence1: {"placeholder":"text_a"} sentence2: {"placeholder":"text_b"} {"mask"}',
        {"text_a": "premise", "text_b": "hypothesis"},
    ),
    "wic": (
        'sentence1: {"placeholder":"text_a"} sentence2: {"placeholder":"text_b"} '
        'word: {"meta":"word", "shortenable": False} {"mask"}',
        {"text_a": "sentence1", "text_b": "sentence2"},
    ),
    "wsc": (
        '{"placeholder":"text_a"} "{"meta":"span2_text"}" refers to "{"meta":"span1_text"}" or another word ? {"mask"}',
        {"text_a": "text"},
    ),
}
SHORTENABLE = {
    "boolq": {"passage"},
    "cb": {"hypothesis", "premise"},
    "copa": {"premise"},
    "multirc": {"paragraph"},
    "rte": {"premise", "hypothesis"},
    "wic": {"sentence1", "sentence2"},
    "wsc": {"text"},
}


def first(task):
    return load_task(task).load(OFFICIAL / task).train[0]


def as_definition(task):
    """A printed template in our notation: template, what is appended, what may be shortened."""
    printed, names = PRINTED[task]
    append, shortenable = {}, set()

    def field(found):
        kind, name, rest = found.groups()
        name = names.get(name, name)
        append[name] = "." if 'lambda x:x+"."' in rest else ""
        if kind == "placeholder" and "False" not in rest:  # OpenPrompt's default: placeholders only
            shortenable.add(name)
        return f"{{{name}}}"

    template = re.sub(r'\{"(placeholder|meta)":\s*"(\w+)"(.*?)\}', field, printed).replace('{"mask"}', "{mask}")
    return template, append, shortenable


@pytest.mark.parametrize("task", PRINTED)
def test_definitions_are_table_10_as_printed(task):
    definition = load_task(task).definition
    template, append, shortenable = as_definition(task)
    assert definition.template == template
    assert {name: spec.append for name, spec in definition.fields.items()} == append
    assert {name for name, spec in definition.fields.items() if spec.shortenable} == shortenable


def test_all_seven_are_held_to_the_paper():
    superglue = {task for task in task_names() if "SuperGLUE" in load_task(task).definition.title}
    assert len(superglue) == 7
    assert superglue == set(PRINTED) == set(TABLE_10) == set(SHORTENABLE)
    verbalizers = {task: set(load_task(task).definition.answers) for task in superglue}
    assert verbalizers == {
        "boolq": {"yes", "no"},
        "cb": {"entailment", "contradiction", "neutral"},
        "copa": {"{choice1}", "{choice2}"},
        "multirc": {"yes", "no"},
        "rte": {"entailment", "contradiction"},
        "wic": {"yes", "no"},
        "wsc": {"another word", "{span1_text}"},
    }


@pytest.mark.parametrize(
    ("task", "right"),
    [
        ("copa", ["It broke.", "A stranger stood at the door.", "The bus came late.", "The oil was used up."]),
        ("wsc", ["another word", "Per", "The drum", "another word"]),
    ],
)
def test_answers_that_stand_in_the_example(task, right):
    examples = load_task(task).load(OFFICIAL / task).train
    assert [example.answers[example.gold] for example in examples] == right


def test_multirc_is_f1_of_yes_over_all_options():
    task = load_task("multirc")
    examples = task.load(OFFICIAL / "multirc").train
    gold = [example.gold for example in examples]
    assert gold == [1, 0, 1, 0, 1, 1, 0, 0]  # three questions of 3, 2 and 3 options
    said = [1, 1, 1, 1, 0, 0, 0, 0]
    assert task.metric.value(answered(said, gold)) == pytest.approx(2 * 2 / (4 + 4))  # 2 of 4 said, 2 of 4 right
    questions = [slice(0, 3), slice(3, 5), slice(5, 8)]
    mean = sum(task.metric.value(answered(said[part], gold[part])) for part in questions) / 3  # F1m, another metric
    assert mean == pytest.approx(0.8 / 3)
    assert examples[2].text.startswith("question: What did Tove carry? answer: A rope. paragraph: Tove")


@pytest.mark.parametrize("task", TABLE_10)
def test_reads_as_table_10(task):
    text, answers = TABLE_10[task]
    example = first(task)
    assert example.text == text
    assert example.answers == answers


@pytest.mark.parametrize("task", TABLE_10)
def test_the_answer_comes_last_and_once(task):
    slots = [segment.answer_slot for segment in first(task).segments]
    assert slots == [False] * (len(slots) - 1) + [True]


@pytest.mark.parametrize("task", SHORTENABLE)
def test_shortenable_as_in_table_10(task):
    definition = load_task(task).definition
    fields = {name for name, spec in definition.fields.items() if spec.shortenable}
    assert fields == SHORTENABLE[task]
    cut = [segment.text for segment in first(task).segments if segment.shortenable]
    assert len(cut) == len(fields)


@pytest.mark.parametrize("task", task_names())
def test_every_definition_loads_and_says_what_it_is(task):
    loaded = load_task(task)
    assert loaded.id == task
    assert loaded.definition.instruction.endswith(".")
    assert loaded.metric.name == loaded.definition.metric


def test_answers_of_different_length_are_scored_by_their_mean():
    means = {task for task in task_names() if load_task(task).definition.score == "mean"}
    assert means == {"copa", "wsc", "cnn_dailymail", "metamath_gsm8k"}


def test_white_space_goes_with_what_follows_and_text_after_the_slot_stays():
    definition = load_task("imdb").definition.model_copy(update={"template": "{text} It was {mask}."})
    segments = fill(definition, {"text": "Fine {film}"})
    assert [(s.text, s.shortenable, s.answer_slot) for s in segments] == [
        ("Fine {film}", True, False),
        (" It was", False, False),
        ("", False, True),
        (".", False, False),
    ]
