"""Every SuperGLUE template, held literally to Table 10 of the XPrompt paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprune.tasks import load_task, task_names
from softprune.tasks.template import fill

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
    assert means == {"copa", "wsc"}


def test_white_space_goes_with_what_follows_and_text_after_the_slot_stays():
    definition = load_task("imdb").definition.model_copy(update={"template": "{text} It was {mask}."})
    segments = fill(definition, {"text": "Fine {film}"})
    assert [(s.text, s.shortenable, s.answer_slot) for s in segments] == [
        ("Fine {film}", True, False),
        (" It was", False, False),
        ("", False, True),
        (".", False, False),
    ]
