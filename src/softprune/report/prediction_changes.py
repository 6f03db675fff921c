"""Examples that control and winner answer differently; written texts differ by what they share with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from softprune.printable import printable
from softprune.report.run_reader import Prediction, Run

MOST = 12
LONGEST = 700


@dataclass(frozen=True, slots=True)
class Change:
    """One example with two answers.

    Attributes:
        id: of the example.
        text: as the model read it; cut where it is long.
        gold, control, winner: answers as text.
        direction: `gained` (only the winner is right, or its text shares more), `lost` (the reverse) or `neither`.
    """

    id: str
    text: str
    gold: str
    control: str
    winner: str
    direction: str


@dataclass(frozen=True, slots=True)
class Written:
    """One example with what was written to it.

    Attributes:
        id: of the example.
        text: as the model read it; cut where it is long.
        reference: its own text.
        texts: by the prompt's name, what was written behind it.
    """

    id: str
    text: str
    reference: str
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed between two prompts.

    Attributes:
        compared: examples that both answered.
        gained, lost, neither: how many of them changed in each direction.
        samples: up to 12 of them, both directions, spread evenly over the set.
    """

    compared: int
    gained: int
    lost: int
    neither: int
    samples: tuple[Change, ...]

    @property
    def changed(self) -> int:
        """How many answers differ."""
        return self.gained + self.lost + self.neither


def changed_answers(control: Sequence[Prediction], winner: Sequence[Prediction]) -> Changes:
    """Compare two prompts' answers, example by example (matched by id)."""
    before = {prediction.id: prediction for prediction in control}
    pairs = [(before[after.id], after) for after in winner if after.id in before]
    changes = [_change(a, b) for a, b in pairs if (a.predicted, a.written) != (b.predicted, b.written)]
    gained, lost, neither = (
        [change for change in changes if change.direction == name] for name in ("gained", "lost", "neither")
    )
    samples = _sample(gained, lost, neither)
    return Changes(len(pairs), len(gained), len(lost), len(neither), samples)


def written_samples(run: Run, most: int = 3) -> tuple[Written, ...]:
    """Some examples of a run whose texts were written, spread evenly over the set; none of other runs."""
    names = [name for name in ("zero_shot", "tuned", "winner") if run.predictions.get(name)]
    if not run.is_generation or not names:
        return ()
    columns = [{p.id: p for p in run.predictions[name]} for name in names]
    ids = [key for key in columns[0] if all(key in column for column in columns)]
    count = min(most, len(ids))
    chosen = [ids[at * len(ids) // count] for at in range(count)]
    return tuple(
        Written(
            id=printable(key),
            text=shortened(printable(columns[0][key].text)),
            reference=printable(columns[0][key].reference),
            texts=tuple(
                (name, _answer(column[key], -1, column[key].written))
                for name, column in zip(names, columns, strict=True)
            ),
        )
        for key in chosen
    )


def _sample(gained: list[Change], lost: list[Change], neither: list[Change]) -> tuple[Change, ...]:
    """Half from each direction; what one lacks the other fills, then changes between two wrong answers."""
    half = MOST // 2
    of_gained = _spread(gained, max(half, MOST - len(lost)))
    of_lost = _spread(lost, MOST - len(of_gained))
    return (*of_gained, *of_lost, *_spread(neither, MOST - len(of_gained) - len(of_lost)))


def _spread(changes: list[Change], most: int) -> list[Change]:
    """At most so many, evenly over the list: sets are often ordered, and its first examples of one kind."""
    count = min(most, len(changes))
    return [changes[i * len(changes) // count] for i in range(count)]


def shortened(text: str) -> str:
    """A text of bearable length."""
    return text if len(text) <= LONGEST else text[:LONGEST] + " […]"


def _change(control: Prediction, winner: Prediction) -> Change:
    gain = _merit(winner) - _merit(control)
    direction = "neither" if gain == 0 else "gained" if gain > 0 else "lost"
    return Change(
        id=printable(winner.id),
        text=shortened(printable(winner.text)),
        gold=_answer(winner, winner.gold, winner.reference),
        control=_answer(control, control.predicted, control.written),
        winner=_answer(winner, winner.predicted, winner.written),
        direction=direction,
    )


def _merit(prediction: Prediction) -> float:
    """ROUGE-L of a written text; else whether the answer is right."""
    return float(prediction.predicted == prediction.gold) if prediction.rougeL is None else prediction.rougeL


def _answer(prediction: Prediction, place: int, text: str | None) -> str:
    """The written text, or the answer's; a generated text that is none of the answers has place -1."""
    if text is not None:
        return printable(text) or "nothing"
    if 0 <= place < len(prediction.answers):
        return printable(prediction.answers[place])
    return "none of them"
