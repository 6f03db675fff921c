"""Answers to new rows: with one ticket, or with several in one batch, each row behind its own prompt (*paired*).

Rows stream: a chunk is read, tokenised, sorted by prompt and length, answered, and given back in the order it came.
Prompts of different lengths never share a call, so none is padded; tasks with different answers may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from softprune.adapters.adapter_io import SavedAdapter
from softprune.config.registry import unknown
from softprune.data.definition import definition_for_row
from softprune.data.metrics import ExactMatch
from softprune.data.row_files import Located, Row, plain_row
from softprune.data.sources import choose_source
from softprune.data.template import UnansweredRow, unanswered_rows
from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.batching import scoring_batches
from softprune.models.fingerprint import same_backbone
from softprune.prompts.ensemble import MEAN, check_combine, check_ensemble, combine_scores
from softprune.prompts.ticket import Ticket
from softprune.training.loop import check_finite
from softprune.training.scoring import ROWS_THAT_WRITE, match_answer
from softprune.training.session import room_for
from softprune.types import Encoded

# What answers rows. An adapter's backbone reads with it already.
Answering = Ticket | SavedAdapter

# Rows that are read, sorted and answered together: enough for even lengths, little enough memory.
CHUNK = 2_048

_NO_NUMBERS = "the model gives no numbers in this format: take --dtype float32, or another ticket"

# The name of the ticket that shall answer a row, and the row.
_Question = tuple[str, UnansweredRow]
# An answer before it has its row: the predicted text, and the candidates' probabilities.
_Outcome = tuple[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a prompt answered to a row."""

    row: Row  # as it was read
    prompt: str  # name of the ticket that answered; of an ensemble, all names
    answer: str  # under `match: generate` the generated text where it is none of the answers
    answers: tuple[str, ...]  # the candidates; none where a text is written
    # Softmax of the candidates' scores, or what an ensemble makes of them; empty under `match: generate`.
    probabilities: tuple[float, ...]
    gold: str | None  # the right answer, or the row's own text, where the row has it
    cut: int  # tokens of the input that were cut away
    empty: bool  # whether the row's texts are all empty, so that only the template was read
    extracted: str | None = None  # what counts of a text, where that is the task's metric; None where nothing was found
    right: bool | None = (
        None  # whether the answer is; None where the row has none, and of texts that aren't right or wrong
    )

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
    if ensemble:
        check_ensemble(tickets if isinstance(tickets, Mapping) else {})
        check_combine(combine)
    named: Mapping[str, Answering] = tickets if isinstance(tickets, Mapping) else {"": tickets}
    if not isinstance(backbone, Backbone):
        if isinstance(tickets, SavedAdapter):
            raise SoftpruneError("the backbone that reads with the adapter", "none", "pass backbone=adapter.load()")
        loading = {"name": backbone} if backbone else {}
        backbone = backbone_of(tickets if isinstance(tickets, Mapping) else {"": tickets}, **loading)
    for ticket in named.values():
        ticket.check(backbone)
    service = _Service(backbone, named, batch_rows)
    asked = _ask(named, rows, column if isinstance(tickets, Mapping) and not ensemble else None)
    while chunk := list(islice(asked, CHUNK)):
        yield from service.together(chunk, combine) if ensemble else service.answer(chunk)


def backbone_of(tickets: Mapping[str, Ticket], **options: Any) -> Backbone:
    """The backbone that all of the tickets were trained on; `options` are of `load_backbone`, in place of their own.

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


def _ask(
    tickets: Mapping[str, Answering], rows: Iterable[Mapping[str, Any] | Located], column: str | None
) -> Iterator[_Question]:
    """Each row as its ticket's task reads it; a task's layout is recognised by the first of its rows."""
    layouts: dict[tuple[str, str], Any] = {}
    for number, row in enumerate(rows):
        if isinstance(row, Located):
            located = row
        elif isinstance(row, Mapping):
            located = Located(plain_row(row), f"row {number}")
        else:
            found = f"{type(row).__name__} {row!r:.40} as row {number}"
            raise SoftpruneError('rows as mappings, such as [{"text": "..."}]', found, "wrap it")
        name = next(iter(tickets)) if column is None else _ticket_name(tickets, located, column)
        definition = definition_for_row(tickets[name].definition, located)
        layout = (name, definition.id)
        if layout not in layouts:
            layouts[layout] = choose_source(definition, located)
        for asked in unanswered_rows(definition, layouts[layout], [located]):
            # A complaint about the text (of its length, say) names the example: by its row's place.
            yield name, replace(asked, example=replace(asked.example, id=asked.where))


def _ticket_name(tickets: Mapping[str, Answering], located: Located, column: str) -> str:
    if column not in located.row:
        raise SoftpruneError(
            f'a column "{column}" that names each row\'s prompt ({", ".join(tickets)})',
            f"{located.where} has {', '.join(map(str, located.row))}",
            "add the column, or name another one with --prompt-column",
        )
    name = str(located.row[column])
    if name not in tickets:
        error = unknown("prompt", name, tickets)
        raise SoftpruneError(error.expected, f"{error.found} in {located.where}", error.do)
    return name


class _Service:
    """Tickets by name, laid out for paired calls of `batch_rows` rows at most: those read alike share a tensor."""

    def __init__(self, backbone: Backbone, tickets: Mapping[str, Answering], batch_rows: int) -> None:
        self._backbone, self._tickets, self._rows = backbone, tickets, batch_rows
        # Whether answers take room in the model's positions, so that inputs are cut for them.
        self._limited = backbone.info.positions is not None and backbone.family in ("causal", "masked")
        self._exact: dict[str, ExactMatch] = {}  # of tickets whose texts have an answer in them
        for name, ticket in tickets.items():
            if ticket.definition.metric == ExactMatch.name:
                self._exact[name] = ExactMatch(ticket.definition.extract)
        kinds: dict[object, list[str]] = {}
        prompts = {name: ticket.prompt() for name, ticket in tickets.items()}
        for name, ticket in tickets.items():
            info = ticket.info
            kind = (prompts[name].shape[0], info.score, info.match, info.max_answer_length)
            kinds.setdefault(kind, []).append(name)
        self._kinds: list[tuple[list[str], torch.Tensor]] = []  # names, and their prompts `[K, Q, H]`
        for names in kinds.values():
            stacked = torch.stack([prompts[name] for name in names])
            self._kinds.append((names, stacked.to(backbone.device, backbone.prompt_dtype)))

    @torch.inference_mode()
    def answer(self, questions: Sequence[_Question]) -> list[Prediction]:
        """Predictions in the questions' order."""
        encoded = self._encode(questions)
        outcomes: dict[int, _Outcome] = {}
        for names, prompts_KQH in self._kinds:
            mine = [i for i, (name, _) in enumerate(questions) if name in names]
            if mine:
                outcomes |= self._answer_alike(names, prompts_KQH, mine, questions, encoded)
        predictions = []
        for i, question in enumerate(questions):
            exact = self._exact.get(question[0])
            predictions.append(_prediction(question, outcomes[i], encoded[i].cut, exact))
        return predictions

    @torch.inference_mode()
    def together(self, questions: Sequence[_Question], combine: str) -> list[Prediction]:
        """One prediction a question, by all tickets: K prompts of one length on B rows are one call of K * B."""
        # Alike in all but what they take of the model's positions: all read what fits behind the longest.
        reader = max(self._tickets, key=lambda name: self._tickets[name].info.prompt_tokens)
        encoded = self._encode([(reader, asked) for _, asked in questions])
        scores: dict[int, list[torch.Tensor]] = {i: [] for i in encoded}
        for names, prompts_KQH in self._kinds:
            for places in self._batches(list(encoded), encoded, self._rows, len(names)):
                batch = self._backbone.batch([encoded[i] for i in places])
                scores_KBA = self._backbone.scores(prompts_KQH, batch, self._tickets[reader].info.score)
                for at, i in enumerate(places):
                    scores[i] += scores_KBA[:, at, : len(encoded[i].answer_ids)].double().cpu().unbind()
        predictions = []
        for i, (_, asked) in enumerate(questions):
            scores_KA, ids = torch.stack(scores[i]), [asked.example.id] * len(scores[i])
            sums = scores_KA.logsumexp(1).tolist()
            check_finite(sums, ids, "score of the answers", "behind its tickets", _NO_NUMBERS)
            answer, shares = combine_scores(scores_KA, combine)
            outcome = asked.example.answers[answer], shares
            predictions.append(_prediction((", ".join(self._tickets), asked), outcome, encoded[i].cut))
        return predictions

    def _encode(self, questions: Sequence[_Question]) -> dict[int, Encoded]:
        """Token ids of each question, cut as its ticket's training inputs were."""
        # Room depends on a row's own answers, never on those of the rows around it.
        groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for i, (name, asked) in enumerate(questions):
            fixed = not self._limited or asked.example.is_generation
            groups.setdefault((name, () if fixed else asked.example.answers), []).append(i)
        encoded: dict[int, Encoded] = {}
        for (name, _), alike in groups.items():
            info, is_generation = self._tickets[name].info, self._tickets[name].definition.is_generation
            generated = info.max_answer_length if info.match == "generate" else 0
            examples = [questions[i][1].example for i in alike]
            room = room_for(self._backbone, examples, info.prompt_tokens, info.max_length, generated)
            rows = self._backbone.encode(examples, room, info.max_answer_length if is_generation else None)
            encoded |= dict(zip(alike, rows, strict=True))
        return encoded

    def _answer_alike(
        self,
        names: Sequence[str],
        prompts_KQH: torch.Tensor,
        mine: Sequence[int],
        questions: Sequence[_Question],
        encoded: Mapping[int, Encoded],
    ) -> dict[int, _Outcome]:
        """Answer the questions of one kind, sorted by length, each behind its own prompt."""
        backbone, info = self._backbone, self._tickets[names[0]].info
        rows = self._rows
        if any(self._tickets[name].definition.is_generation for name in names):
            rows = min(rows, ROWS_THAT_WRITE)
        outcomes: dict[int, _Outcome] = {}
        for places in self._batches(mine, encoded, rows):
            prompts_BQH = prompts_KQH[[names.index(questions[i][0]) for i in places]]
            batch = backbone.batch([encoded[i] for i in places])
            examples = [questions[i][1].example for i in places]
            if info.match == "generate":
                texts = backbone.generate(prompts_BQH, batch, info.max_answer_length)
                for i, example, text in zip(places, examples, texts, strict=True):
                    at = match_answer(text, example.answers)
                    if at >= 0 and not example.is_generation:  # a text to be written stays as it is
                        text = example.answers[at]
                    outcomes[i] = (text, ())
                continue
            scores_BA = backbone.row_scores(prompts_BQH, batch, info.score).double()
            ids = [example.id for example in examples]
            sums = scores_BA.logsumexp(1).tolist()
            check_finite(sums, ids, "score of the answers", "behind its ticket", _NO_NUMBERS)
            shares = torch.softmax(scores_BA, dim=1).tolist()
            for i, example, share in zip(places, examples, shares, strict=True):
                share = share[: len(example.answers)]  # others of the batch may have more answers
                outcomes[i] = (example.answers[share.index(max(share))], tuple(share))
        return outcomes

    def _batches(
        self, mine: Sequence[int], encoded: Mapping[int, Encoded], rows: int, prompts: int = 1
    ) -> Iterator[list[int]]:
        """Questions that share a call, by length: so many that each with its answers, behind each prompt, fits."""
        lengths = [len(encoded[i].input_ids) for i in mine]
        answers = max(len(encoded[i].answer_ids) for i in mine)
        multiple = prompts * (1 if self._backbone.family == "sentence" else answers)
        for places in scoring_batches(lengths, rows, multiple):
            yield [mine[place] for place in places]


def _prediction(question: _Question, outcome: _Outcome, cut: int, exact: ExactMatch | None = None) -> Prediction:
    (prompt, asked), (answer, probabilities) = question, outcome
    example = asked.example
    gold = example.answers[example.gold] if example.gold >= 0 else None
    extracted, right = None, None
    if exact is not None:
        extracted = exact.answer(answer)
    if gold is not None and exact is not None:
        right = exact.is_right(answer, gold)
    elif gold is not None and not example.is_generation:
        right = answer == gold
    return Prediction(
        row=asked.row,
        prompt=prompt,
        answer=answer,
        answers=() if example.is_generation else example.answers,
        probabilities=probabilities,
        gold=gold,
        cut=cut,
        empty=asked.empty,
        extracted=extracted,
        right=right,
    )
