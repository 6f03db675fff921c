"""Examples that control and winner answer differently; written texts differ by what they share with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from softprune.printable import printable
from softprune.report.run_reader import Prediction, Run

Item = TypeVar("Item")

MOST = 12
LONGEST = 700


@dataclass(frozen=True, slots=True)
class Change:
    """One example with two answers as text."""

    id: str
    text: str  # as the model read it; cut where it is long
    gold: str
    control: str
    winner: str
    direction: str  # gained (only the winner is right, or its text shares more), lost (the reverse) or neither


@dataclass(frozen=True, slots=True)
class Written:
    """One example, its own text, and what was written to it."""

    id: str
    text: str
    reference: str
    texts: tuple[tuple[str, str], ...]  # name of the prompt, what the model wrote behind it


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed between two prompts."""

    compared: int  # examples that both answered
    gained: int  # how many of them changed in each direction
    lost: int
    neither: int
    samples: tuple[Change, ...]  # some of them, both directions, spread evenly over the set

    @property
    def changed(self) -> int:
        """How many answers differ."""
        return self.gained + self.lost + self.neither


def changed_answers(control: Sequence[Prediction], winner: Sequence[Prediction]) -> Changes:
    """Compare two prompts' answers, example by example (matched by id)."""
    before = {prediction.id: prediction for prediction in control}
    pairs = [(before[after.id], after) for after in winner if after.id in before]
    changes: dict[str, list[Change]] = {"gained": [], "lost": [], "neither": []}
    for a, b in pairs:
        if (a.predicted, a.written) == (b.predicted, b.written):
            continue
        gain = _merit(b) - _merit(a)
        direction = "neither"
        if gain:
            direction = "gained" if gain > 0 else "lost"
        change = Change(
            id=printable(b.id),
            text=shorten_text(printable(b.text)),
            gold=_answer_text(b, b.gold, b.reference),
            control=_answer_text(a, a.predicted, a.written),
            winner=_answer_text(b, b.predicted, b.written),
            direction=direction,
        )
        changes[direction].append(change)
    gained, lost, neither = changes.values()
    # Half from each direction; what one lacks the other fills, then changes between two wrong answers.
    samples = _spread(gained, max(MOST // 2, MOST - len(lost)))
    samples += _spread(lost, MOST - len(samples))
    samples += _spread(neither, MOST - len(samples))
    return Changes(len(pairs), len(gained), len(lost), len(neither), tuple(samples))


def written_samples(run: Run) -> tuple[Written, ...]:
    """Some examples of a run whose texts were written, spread evenly over the set; none of other runs."""
    names = [name for name in ("zero_shot", "tuned", "winner") if run.predictions.get(name)]
    if not run.is_generation or not names:
        return ()
    columns = {name: {p.id: p for p in run.predictions[name]} for name in names}
    first = columns[names[0]]
    ids = [key for key in first if all(key in column for column in columns.values())]
    samples = []
    for key in _spread(ids, 3):
        example = first[key]
        texts = tuple((name, _answer_text(column[key], -1, column[key].written)) for name, column in columns.items())
        text, reference = shorten_text(printable(example.text)), printable(example.reference)
        samples.append(Written(printable(key), text, reference, texts))
    return tuple(samples)


def _spread(items: list[Item], most: int) -> list[Item]:
    """At most so many, evenly over the list: sets are often ordered, and its first examples of one kind."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def shorten_text(text: str) -> str:
    """A text of bearable length."""
    return text if len(text) <= LONGEST else text[:LONGEST] + " […]"


def _merit(prediction: Prediction) -> float:
    """ROUGE-L of a written text; else whether the answer is right."""
    return float(prediction.predicted == prediction.gold) if prediction.rougeL is None else prediction.rougeL


def _answer_text(prediction: Prediction, place: int, text: str | None) -> str:
    """The written text, or the answer's; a generated text that is none of the answers has place -1."""
    if text is not None:
        return printable(text) or "nothing"
    return printable(prediction.answers[place]) if 0 <= place < len(prediction.answers) else "none of them"
