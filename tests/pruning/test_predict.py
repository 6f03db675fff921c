"""New rows behind tickets: paired as alone, in order, whatever the layout, and no more rows in memory than a chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.evaluation import predict as module
from softprune.evaluation.predict import Prediction, predict
from softprune.models.base import Backbone
from softprune.prompts.ticket import Ticket
from tickets import small_ticket, ticket_of

TASKS = ("demo", "trec", "copa", "sentence_polarity")
KEPT = (6, 3, 3, 3)  # trec and sentence_polarity share calls; copa has their length, but reads means
ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "demo", "text": "the parcel never arrived"},
    {"prompt": "trec", "text": "who wrote it ?", "coarse": "HUM"},
    {"prompt": "copa", "premise": "the man was cold", "question": "effect", "choice1": "he ran", "choice2": "he slept"},
    {"prompt": "sentence_polarity", "text": "a slow and quiet joy of a film that never wakes up", "label": 1},
    {"prompt": "trec", "text": "where is the red box , and how many windows has the room ?", "coarse": "LOC"},
    {"prompt": "copa", "premise": "it was red", "question": "cause", "choice1": "paint", "choice2": "the sun was low"},
    {"prompt": "demo", "text": "she said the screen is cracked"},
)


def tickets_of(backbone: Backbone, **changes: Any) -> dict[str, Ticket]:
    shapes = zip(TASKS, KEPT, strict=True)
    return {task: ticket_of(backbone, task, kept, seed, **changes) for seed, (task, kept) in enumerate(shapes)}


def distance(found: list[Prediction], wanted: list[Prediction]) -> float:
    """The largest difference of two lists of log-probabilities, relative to the largest of the second."""
    pairs = zip(found, wanted, strict=True)
    both = [(log(a), log(b)) for x, y in pairs for a, b in zip(x.probabilities, y.probabilities, strict=True)]
    return max(abs(a - b) for a, b in both) / max(abs(b) for _, b in both)


@pytest.mark.parametrize("name", ["sentence", "t5_v1_1", "gpt2", "bert"])
def test_four_tickets_in_one_batch_answer_as_each_alone(name: str, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(name)
    tickets = tickets_of(backbone)
    paired = list(predict(tickets, ROWS, backbone=backbone))
    alone = [next(predict(tickets[row["prompt"]], [row], backbone=backbone)) for row in ROWS]
    assert [p.prompt for p in paired] == [row["prompt"] for row in ROWS]
    assert [(p.row, p.answers, p.answer, p.gold) for p in paired] == [
        (p.row, p.answers, p.answer, p.gold) for p in alone
    ]
    assert distance(paired, alone) <= 1e-5
    for one, other in (("demo", "copa"), ("trec", "sentence_polarity")):
        swapped = {**tickets, one: replace(tickets[one], state=tickets[other].state)}
        found = list(predict(swapped, ROWS, backbone=backbone))
        assert distance(found, alone) > 1e-3, "another prompt says something else"


def test_probabilities_are_of_the_scores_that_a_run_would_compute(backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of("t5_v1_1")
    ticket = ticket_of(backbone, "copa", 2, 0)
    row = ROWS[2]
    (found,) = predict(ticket, [row], backbone=backbone)
    text = "choice1: he ran choice2: he slept premise: the man was cold question: effect"
    ids = backbone.tokenizer(text, return_tensors="pt")["input_ids"]
    embeds = torch.cat([ticket.prompt()[None], backbone.lookup(ids)], dim=1)
    means = []
    for answer in ("he ran", "he slept"):
        labels = backbone.tokenizer(answer, return_tensors="pt")["input_ids"]
        means.append(-backbone.model(inputs_embeds=embeds, labels=labels).loss)
    wanted = torch.softmax(torch.stack(means), 0).tolist()
    assert max(abs(a - b) for a, b in zip(found.probabilities, wanted, strict=True)) <= 1e-5 * max(wanted)
    assert abs(wanted[0] - 0.5) > 1e-3
    assert found.answer == ("he ran", "he slept")[wanted.index(max(wanted))]
    assert found.probability == max(found.probabilities)


def test_generated_answers_are_paired_too(backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of("gpt2")
    tickets = tickets_of(backbone, match="generate", max_answer_length=3)
    paired = list(predict(tickets, ROWS, backbone=backbone))
    alone = [next(predict(tickets[row["prompt"]], [row], backbone=backbone)) for row in ROWS]
    assert [p.answer for p in paired] == [p.answer for p in alone]
    assert len({p.answer for p in paired}) > 1
    assert all(p.probability is None for p in paired)


def test_rows_stream_in_their_order(backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 8)
    taken: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for n in range(40):
            taken.append(n)
            yield {"text": "a red box " * (1 + 7 * n % 5), "number": n}

    backbone = backbone_of("sentence")
    answered = predict(ticket_of(backbone, "demo", 2, 0), rows(), backbone=backbone, batch_rows=3)
    assert next(answered).row["number"] == 0
    assert len(taken) == 8, "no more than a chunk was read"
    assert [p.row["number"] for p in answered] == list(range(1, 40))


LABELLED = (
    {"text": "who is he ?", "coarse": "HUM"},
    {"text": "who is he ?", "coarse_label": 3},
    {"text": "who is he ?", "label": "human"},
)


@pytest.mark.parametrize("row", LABELLED)
def test_rows_in_every_layout_tell_their_label(row: dict[str, Any], backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of("sentence")
    (found,) = predict(ticket_of(backbone, "trec", 2, 0), [row], backbone=backbone)
    assert found.gold == "human"
    (unlabelled,) = predict(ticket_of(backbone, "trec", 2, 0), [{"text": row["text"]}], backbone=backbone)
    assert unlabelled.gold is None
    assert unlabelled.probabilities == found.probabilities


def test_a_row_readers_changes_are_made_to_new_rows(backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of("sentence")
    ticket = ticket_of(backbone, "imdb", 2, 0)
    (broken,) = predict(ticket, [{"text": "a red<br />box"}], backbone=backbone)
    (plain,) = predict(ticket, [{"text": "a red box"}], backbone=backbone)
    assert broken.probabilities == plain.probabilities
    assert broken.row["text"] == "a red box"


def test_what_is_wrong_is_told(backbone_of: Callable[..., Backbone]) -> None:
    backbone, other = backbone_of("sentence"), backbone_of("gpt2")
    tickets = tickets_of(backbone)
    with pytest.raises(SoftpruneError, match=r'no "text" in row 1; its columns are prompt, words'):
        list(predict(tickets, [ROWS[0], {"prompt": "demo", "words": "a"}], backbone=backbone))
    with pytest.raises(SoftpruneError, match=r'"demos" in row 0(.|\n)*did you mean "demo"'):
        list(predict(tickets, [{"prompt": "demos", "text": "a"}], backbone=backbone))
    with pytest.raises(SoftpruneError, match='a column "which" that names'):
        list(predict(tickets, [ROWS[0]], backbone=backbone, column="which"))
    with pytest.raises(SoftpruneError, match="expected"):
        list(predict(tickets["demo"], [ROWS[0]], backbone=other))
    masked = backbone_of("bert")
    texts = ({"text": text} for text in ("a red box", f"a {masked.tokenizer.mask_token} box"))
    with pytest.raises(SoftpruneError, match="2 mask tokens in example row 1"):
        list(predict(ticket_of(masked, "demo", 2, 0), texts, backbone=masked))
    with pytest.raises(SoftpruneError, match="at least one ticket"):
        list(predict({}, [ROWS[0]]))
    for rows in (["a text"], {"text": "a"}):
        with pytest.raises(SoftpruneError, match="rows as mappings"):
            list(predict(tickets["demo"], rows, backbone=backbone))  # type: ignore[arg-type]
    mixed = {"a": tickets["demo"], "b": ticket_of(other, "demo", 2, 0)}
    with pytest.raises(SoftpruneError, match="tickets of one backbone"):
        list(predict(mixed, [ROWS[0]]))


def test_scores_that_are_no_numbers_are_no_answers(backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of("sentence")
    ticket = ticket_of(backbone, "demo", 2, 0)
    huge = replace(ticket, state=replace(ticket.state, vectors_PH=ticket.state.vectors_PH * 1e38))
    list(predict(ticket, [{"text": "a red box"}], backbone=backbone))
    with pytest.raises(SoftpruneError, match=r"nan for row 0 behind its ticket\n.*--dtype float32"):
        list(predict(huge, [{"text": "a red box"}], backbone=backbone))


def test_rows_are_cut_where_training_inputs_were(backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of("t5_v1_1")
    long, longer = ({"text": f"a red box {tail}"} for tail in ("and a window " * 9, "and a window " * 9 + "and he ran"))
    short, whole = (ticket_of(backbone, "demo", 2, 0, max_length=length) for length in (12, 1_000))
    a, b = predict(short, [long, longer], backbone=backbone)
    assert distance([a], [b]) <= 1e-5
    a, b = predict(whole, [long, longer], backbone=backbone)
    assert distance([a], [b]) > 1e-3


@pytest.mark.parametrize("match", ["score", "generate"])
def test_a_row_leaves_room_for_prompt_and_answer(match: str, backbone_of: Callable[..., Backbone]) -> None:
    """Positions that don't exist are an error of GPT-2's; nothing but the text may give way."""
    backbone = backbone_of("gpt2")
    ticket = ticket_of(backbone, "demo", 6, 0, match=match, max_answer_length=30, max_length=10_000)
    longest = max(len(backbone.tokenization().answer_ids(answer)) for answer in ticket.definition.answers)
    assert longest < 30
    (found,) = predict(ticket, [{"text": "a red box and a window " * 200}], backbone=backbone)
    assert found.answer in found.answers or match == "generate"


def test_a_rows_neighbours_do_not_change_where_it_is_cut(backbone_of: Callable[..., Backbone]) -> None:
    """A model of 64 positions: a neighbour with long answers must not take this row's room."""
    backbone = backbone_of("gpt2")
    ticket = ticket_of(backbone, "copa", 2, 0)
    row = {"premise": "the man was cold " * 40, "question": "effect", "choice1": "he ran", "choice2": "he slept"}
    wordy = {**row, "choice1": "he ran " * 6}
    (alone,) = predict(ticket, [row], backbone=backbone)
    beside, neighbour = predict(ticket, [row, wordy], backbone=backbone)
    assert alone.cut == beside.cut > 0
    assert neighbour.cut > alone.cut
    assert distance([beside], [alone]) <= 1e-5


def test_a_backbone_by_its_place(backbone_of: Callable[..., Backbone], tiny_models: Callable[[str], Path]) -> None:
    backbone = backbone_of("sentence")
    ticket = small_ticket(backbone, name="gone")
    (found,) = predict(ticket, [{"text": "a red box"}], backbone=str(tiny_models("sentence")))
    (wanted,) = predict(ticket, [{"text": "a red box"}], backbone=backbone)
    assert found.answer == wanted.answer
