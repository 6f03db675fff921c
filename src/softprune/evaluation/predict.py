"""Answers to new rows: with one ticket, or with several in one batch, each row behind its own prompt (*paired*).

Rows stream: a chunk is read, tokenised, sorted by prompt and length, answered, and given back in the order it came.
Prompts of different lengths never share a call, so none is padded; tasks with different answers may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from softprune.config.registry import unknown
from softprune.data.definition import Definition
from softprune.data.input_rows import choose_source
from softprune.data.multitask import definition_for_row
from softprune.data.row_files import Located, Row, plain_row
from softprune.data.template import UnansweredRow, unanswered_rows
from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.batching import scoring_batches
from softprune.models.fingerprint import same_backbone
from softprune.prompts.ensemble import MEAN, check_combine, check_ensemble, combine_scores
from softprune.prompts.ticket import Ticket
from softprune.training.nan_checks import check_finite
from softprune.training.scoring import ROWS_THAT_WRITE, answer_of
from softprune.training.session import room_for
from softprune.types import Encoded, Example


class Reads(Protocol):
    """How inputs are read, and answers told; as in `TicketInfo`."""

    @property
    def score(self) -> str:
        """Sum or mean."""

    @property
    def match(self) -> str:
        """Score or generate."""

    @property
    def max_answer_length(self) -> int:
        """Tokens that are generated at most."""

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""

    @property
    def prompt_tokens(self) -> int:
        """Positions that are taken up before the input."""


class Answering(Protocol):
    """What answers rows: a ticket, or an adapter whose backbone reads with it."""

    @property
    def info(self) -> Reads:
        """How it reads."""

    @property
    def definition(self) -> Definition:
        """The task's."""

    def prompt(self) -> torch.Tensor:
        """What the backbone reads before the inputs, `[Q, H]`."""

    def check(self, backbone: Backbone) -> None:
        """Hold it to its backbone."""


_NO_NUMBERS = "the model gives no numbers in this format: take --dtype float32, or another ticket"

# Rows that are read, sorted and answered together: enough for even lengths, little enough memory.
CHUNK = 2_048


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a prompt answered to a row.

    Attributes:
        row: the row, as it was read.
        prompt: name of the ticket that answered; of an ensemble, all names.
        answer: the answer; under `match: generate` the generated text where it is none of the answers.
        answers: the candidates; none where a text is written.
        probabilities: softmax of their scores, or what an ensemble makes of them; empty under `match: generate`.
        gold: the right answer, or the row's own text, where the row tells it, else None.
        cut: tokens of the input that were cut away.
        empty: whether the row's texts are all empty, so that only the template was read.
    """

    row: Row
    prompt: str
    answer: str
    answers: tuple[str, ...]
    probabilities: tuple[float, ...]
    gold: str | None
    cut: int
    empty: bool

    @property
    def probability(self) -> float | None:
        """Of the answer, among the candidates; None where the answer was generated."""
        return max(self.probabilities) if self.probabilities else None


def predict(
    tickets: Answering | Mapping[str, Ticket],
    rows: Iterable[Mapping[str, Any] | Located],
    *,
    backbone: Backbone | str | Path | None = None,
    column: str = "prompt",
    batch_rows: int = 256,
    ensemble: bool = False,
    combine: str = MEAN,
) -> Iterator[Prediction]:
    """Answer rows, however many, in their order.

    Args:
        tickets: one, or several by name, all of one backbone; or an adapter, beside the backbone that it has loaded.
        rows: mappings with the task's fields, in any of its layouts; labels may be there, and are not looked at.
        backbone: what the tickets were trained on, loaded, or where it lies now; None loads what they name.
        column: where there are several tickets, the column of a row that names its own.
        batch_rows: rows of one backbone call at most (times answers, but for sentence models).
        ensemble: whether all tickets answer every row together; they are of one task then, and no column is read.
        combine: how: `mean` of their probabilities, `geometric` mean of them, or `vote`.

    Raises:
        SoftpruneError: for a ticket of another backbone, a row that names no ticket, tickets that can't answer
            together, and whatever a row has wrong.
    """
    several = isinstance(tickets, Mapping)
    if ensemble:
        check_ensemble(tickets if isinstance(tickets, Mapping) else {})
        check_combine(combine)
    named: dict[str, Answering] = dict(tickets) if isinstance(tickets, Mapping) else {"": tickets}
    if not isinstance(backbone, Backbone):
        whose = {name: ticket for name, ticket in named.items() if isinstance(ticket, Ticket)}
        if len(whose) < len(named):
            raise SoftpruneError("the backbone that reads with the adapter", "none", "pass backbone=adapter.load()")
        backbone = backbone_of(whose, **({"name": backbone} if backbone else {}))
    for ticket in named.values():
        ticket.check(backbone)
    service = _Service(backbone, named, batch_rows)
    asked = _asked(named, rows, column if several and not ensemble else None)
    while chunk := list(islice(asked, CHUNK)):
        yield from service.together(chunk, combine) if ensemble else service.answer(chunk)


def backbone_of(tickets: Mapping[str, Ticket], **options: Any) -> Backbone:
    """The backbone that all of the tickets were trained on.

    Args:
        tickets: by name.
        options: of `load_backbone`, in place of what the tickets say.

    Raises:
        SoftpruneError: when they weren't trained on one, or there are none.
    """
    if not tickets:
        raise SoftpruneError("at least one ticket", "none", "name one, or several as --prompts a=FOLDER,b=FOLDER")
    first, *others = tickets.items()
    for name, other in others:
        if not same_backbone(other.info.fingerprint, first[1].info.fingerprint):
            raise SoftpruneError(
                "tickets of one backbone in one batch",
                f'"{first[0]}" is of {first[1].info.backbone}, "{name}" of {other.info.backbone}',
                "predict with those of each backbone apart",
            )
    info = first[1].info
    return load_backbone(**{"name": info.backbone, "family": info.family, "revision": info.revision, **options})


@dataclass(frozen=True, slots=True)
class _Question:
    """A row with the name of the ticket that shall answer it."""

    prompt: str
    asked: UnansweredRow


@dataclass(frozen=True, slots=True)
class _Outcome:
    """An answer before it has its row: the predicted text, and the candidates' probabilities."""

    answer: str
    probabilities: tuple[float, ...] = ()


def _asked(
    tickets: Mapping[str, Answering], rows: Iterable[Mapping[str, Any] | Located], column: str | None
) -> Iterator[_Question]:
    """Each row as its ticket's task reads it; a task's layout is told by the first of its rows."""
    layouts: dict[tuple[str, str], Any] = {}
    for number, row in enumerate(rows):
        located = row if isinstance(row, Located) else Located(_mapping(row, number), f"row {number}")
        name = "" if column is None else _named(tickets, located, column)
        ticket = tickets[name] if column is not None else next(iter(tickets.values()))
        definition = definition_for_row(ticket.definition, located)
        layout = (name, definition.id)
        if layout not in layouts:
            layouts[layout] = choose_source(definition, located)
        for asked in unanswered_rows(definition, layouts[layout], [located]):
            # A complaint about the text (of its length, say) names the example: by its row's place.
            yield _Question(name, replace(asked, example=replace(asked.example, id=asked.where)))


def _mapping(row: object, number: int) -> Row:
    if not isinstance(row, Mapping):
        raise SoftpruneError(
            'rows as mappings, such as [{"text": "..."}]',
            f"{type(row).__name__} {row!r:.40} as row {number}",
            "wrap it",
        )
    return plain_row(row)


def _named(tickets: Mapping[str, Answering], located: Located, column: str) -> str:
    """The name of a row's ticket."""
    if column not in located.row:
        raise SoftpruneError(
            f'a column "{column}" that names each row\'s prompt ({", ".join(tickets)})',
            f"{located.where} has {', '.join(map(str, located.row))}",
            "add the column, or name another one with --prompt-column",
        )
    name = str(located.row[column])
    if name not in tickets:
        told = unknown("prompt", name, tickets)
        raise SoftpruneError(told.expected, f"{told.found} in {located.where}", told.do)
    return name


class _Service:
    """Tickets laid out for paired calls: those that are read alike share a tensor.

    Args:
        backbone: frozen.
        tickets: by name.
        batch_rows: rows of one call at most.
    """

    def __init__(self, backbone: Backbone, tickets: Mapping[str, Answering], batch_rows: int) -> None:
        self._backbone, self._tickets, self._rows = backbone, tickets, batch_rows
        self._limited = backbone.info.positions is not None and backbone.family in ("causal", "masked")
        self._kinds: dict[tuple[object, ...], list[str]] = {}
        for name, ticket in tickets.items():
            kind = (ticket.prompt().shape[0], ticket.info.score, ticket.info.match, ticket.info.max_answer_length)
            self._kinds.setdefault(kind, []).append(name)
        self._prompts = {
            kind: torch.stack([tickets[name].prompt() for name in names]).to(backbone.device, backbone.prompt_dtype)
            for kind, names in self._kinds.items()
        }

    @torch.inference_mode()
    def answer(self, questions: Sequence[_Question]) -> Iterator[Prediction]:
        """Predictions in the questions' order."""
        encoded = self._encoded(questions)
        outcomes: dict[int, _Outcome] = {}
        for kind, names in self._kinds.items():
            mine = [i for i, question in enumerate(questions) if question.prompt in names]
            if mine:
                outcomes |= self._answered(kind, names, mine, questions, encoded)
        return iter([_prediction(question, outcomes[i], encoded[i].cut) for i, question in enumerate(questions)])

    @torch.inference_mode()
    def together(self, questions: Sequence[_Question], combine: str) -> Iterator[Prediction]:
        """One prediction a question, by all tickets: K prompts of one length on B rows are one call of K * B."""
        # Alike in all but what they take of the model's positions: all read what fits behind the longest.
        reader = max(self._tickets, key=lambda name: self._tickets[name].info.prompt_tokens)
        encoded = self._encoded([replace(question, prompt=reader) for question in questions])
        scores: dict[int, list[torch.Tensor]] = {i: [] for i in encoded}
        for kind, names in self._kinds.items():
            for places in self._batches(list(encoded), encoded, self._rows, len(names)):
                batch = self._backbone.batch([encoded[i] for i in places])
                found_KBA = self._backbone.scores(self._prompts[kind], batch, self._tickets[reader].info.score)
                for at, i in enumerate(places):
                    scores[i] += found_KBA[:, at, : len(encoded[i].answer_ids)].double().cpu().unbind()
        whose = ", ".join(self._tickets)
        asked = [replace(question, prompt=whose) for question in questions]
        return iter([_prediction(q, _agreed(q, scores[i], combine), encoded[i].cut) for i, q in enumerate(asked)])

    def _encoded(self, questions: Sequence[_Question]) -> dict[int, Encoded]:
        """Token ids of each question, cut as its ticket's training inputs were."""
        found: dict[int, Encoded] = {}
        for name, ticket in self._tickets.items():
            mine = [i for i, question in enumerate(questions) if question.prompt == name]
            # Room depends on a row's own answers, never on those of the rows around it.
            by_answers: dict[tuple[str, ...], list[int]] = {}
            for i in mine:
                example = questions[i].asked.example
                fixed = not self._limited or example.is_generation
                by_answers.setdefault(() if fixed else example.answers, []).append(i)
            for alike in by_answers.values():
                examples = [questions[i].asked.example for i in alike]
                longest = ticket.info.max_answer_length if ticket.definition.is_generation else None
                read = self._backbone.encode(examples, self._room(ticket, examples), longest)
                found |= dict(zip(alike, read, strict=True))
        return found

    def _room(self, ticket: Answering, examples: Sequence[Example]) -> int:
        info = ticket.info
        generated = info.max_answer_length if info.match == "generate" else 0
        return room_for(self._backbone, examples, info.prompt_tokens, info.max_length, generated)

    def _answered(
        self,
        kind: tuple[object, ...],
        names: Sequence[str],
        mine: Sequence[int],
        questions: Sequence[_Question],
        encoded: Mapping[int, Encoded],
    ) -> dict[int, _Outcome]:
        """Answer the questions of one kind, sorted by length, each behind its own prompt."""
        writes = any(self._tickets[name].definition.is_generation for name in names)
        rows = min(self._rows, ROWS_THAT_WRITE) if writes else self._rows
        found: dict[int, _Outcome] = {}
        for chosen in self._batches(mine, encoded, rows):
            prompts_BQH = self._prompts[kind][[names.index(questions[i].prompt) for i in chosen]]
            examples = [questions[i].asked.example for i in chosen]
            ticket = self._tickets[names[0]]
            outcomes = self._call(prompts_BQH, [encoded[i] for i in chosen], examples, ticket)
            found |= dict(zip(chosen, outcomes, strict=True))
        return found

    def _batches(
        self, mine: Sequence[int], encoded: Mapping[int, Encoded], rows: int, prompts: int = 1
    ) -> Iterator[list[int]]:
        """Questions that share a call, by length: so many that each with its answers, behind each prompt, fits."""
        lengths = [len(encoded[i].input_ids) for i in mine]
        answers = max(len(encoded[i].answer_ids) for i in mine)
        multiple = prompts * (1 if self._backbone.family == "sentence" else answers)
        return ([mine[place] for place in places] for places in scoring_batches(lengths, rows, multiple))

    def _call(
        self, prompts_BQH: torch.Tensor, encoded: Sequence[Encoded], examples: Sequence[Example], like: Answering
    ) -> list[_Outcome]:
        """One paired call of the backbone; `like` says how it is read."""
        batch, answers = self._backbone.batch(encoded), [example.answers for example in examples]
        if like.info.match == "generate":
            texts = self._backbone.generate(prompts_BQH, batch, like.info.max_answer_length)
            if like.definition.is_generation:  # nothing to match: a text stays as it was written
                return [_Outcome(text) for text in texts]
            matched = [answer_of(text, each) for text, each in zip(texts, answers, strict=True)]
            return [
                _Outcome(text if at < 0 else each[at]) for text, each, at in zip(texts, answers, matched, strict=True)
            ]
        scores_BA = self._backbone.row_scores(prompts_BQH, batch, like.info.score).double()
        names = [example.id for example in examples]
        check_finite(scores_BA.logsumexp(1).tolist(), names, "score of the answers", "behind its ticket", _NO_NUMBERS)
        shares = torch.softmax(scores_BA, dim=1).tolist()
        return [
            _Outcome(each[max(range(len(each)), key=lambda a: (share[a], -a))], tuple(share[: len(each)]))
            for share, each in zip(shares, answers, strict=True)
        ]


def _agreed(question: _Question, scores: Sequence[torch.Tensor], combine: str) -> _Outcome:
    """What tickets answer together, each by its scores `[A]`."""
    example = question.asked.example
    scores_KA = torch.stack(list(scores))
    names = [example.id] * len(scores)
    check_finite(scores_KA.logsumexp(1).tolist(), names, "score of the answers", "behind its tickets", _NO_NUMBERS)
    answer, shares = combine_scores(scores_KA, combine)
    return _Outcome(example.answers[answer], shares)


def _prediction(question: _Question, outcome: _Outcome, cut: int) -> Prediction:
    example = question.asked.example
    return Prediction(
        row=question.asked.row,
        prompt=question.prompt,
        answer=outcome.answer,
        answers=() if example.is_generation else example.answers,
        probabilities=outcome.probabilities,
        gold=example.answers[example.gold] if example.gold >= 0 else None,
        cut=cut,
        empty=question.asked.empty,
    )
