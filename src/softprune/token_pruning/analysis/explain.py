"""One text and what became of its words, in a terminal and as a page.

Every word is shaded by the layer after which it left, and marked with that layer's number, so that nothing depends on
colour alone; words that were kept to the end are bold and bear no number. Layers count from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from softprune.printable import printable
from softprune.report.formatting import percent
from softprune.token_pruning.analysis.words import Mark, Word, words_of
from softprune.token_pruning.token_trace import TokenReading

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
FAINT, STRONG = (118, 118, 118), (220, 110, 40)
"""Terminal colours of a word that left first and one that left last: gray to orange, readable on black and white."""
KEPT_STYLE = "bold reverse"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the text.

    Attributes:
        text: its characters, which a terminal or a page may show as they are.
        left: of the word that it is; None between words.
        kept: whether the word was kept to the end.
        unread: whether it is text behind the last token that was read.
        pos: the word's part of speech, where a tagger told.
    """

    text: str
    left: int | None = None
    kept: bool = False
    unread: bool = False
    pos: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One text, ready to be shown; `print` of rich shows it in a terminal.

    Attributes:
        reading: of the text.
        words: that the model read.
        labels: names of the classes.
    """

    reading: TokenReading
    words: tuple[Word, ...]
    labels: tuple[str, ...]

    def segments(self) -> Iterator[Segment]:
        """The whole text, cut at the borders of words; together they are the text."""
        text, place = self.reading.text, 0
        last = max((end for (_, end) in self.reading.offsets), default=0)
        for word in self.words:
            start, end = max(word.mark.start, place), word.mark.end
            yield from _between(text, place, start, last)
            yield Segment(printable(text[start:end]), word.left, word.left == self.reading.layers, pos=word.mark.pos)
            place = end
        yield from _between(text, place, len(text), last)

    def dropped_after(self) -> list[int]:
        """The layers after which words were dropped."""
        return sorted({word.left for word in self.words} - {self.reading.layers})

    def prediction(self) -> str:
        """Predicted class and its probability, and the true one where it is known."""
        reading = self.reading
        sure = f"{percent(reading.probabilities[reading.predicted])}%"
        told = f"{printable(self.labels[reading.predicted])} ({sure})"
        if reading.gold is None:
            return told
        right = "right" if reading.gold == reading.predicted else f"wrong: it is {printable(self.labels[reading.gold])}"
        return f"{told}, {right}"

    def counts(self) -> str:
        """How many tokens are left after each layer."""
        alive = ", ".join(f"{layer}: {count}" for layer, count in enumerate(self.reading.alive()))
        return f"{len(self.reading.left)} tokens read; left after layer {alive}"

    def kept_words(self) -> str:
        """How many words were kept, and what was cut."""
        kept = sum(word.left == self.reading.layers for word in self.words)
        cut = f"; {self.reading.cut} tokens at the end were cut off, unread" if self.reading.cut else ""
        return f"{kept} of {len(self.words)} words kept to the end{cut}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = console.no_color or console.color_system is None
        yield Text(f"prediction: {self.prediction()}", style="bold")
        for place, name in enumerate(self.labels):
            yield Text(f"  {percent(self.reading.probabilities[place]):>5}%  {printable(name)}")
        yield Text()
        yield self._line(plain)
        yield Text()
        yield self._legend(plain)
        yield Text(self.kept_words())
        yield Text(self.counts())

    def _line(self, plain: bool) -> Text:
        line = Text()
        for segment in self.segments():
            if segment.left is None:
                line.append(segment.text, style="dim strike" if segment.unread and not plain else "")
            else:
                line.append_text(_shaded(segment.text, segment.left, self.reading.layers, plain))
        return line

    def _legend(self, plain: bool) -> Text:
        line, layers = Text("left after layer "), self.reading.layers
        for layer in self.dropped_after():
            line.append_text(_shaded("word", layer, layers, plain)).append("  ")
        return line.append(" kept to the end: ").append_text(_shaded("word", layers, layers, plain))


def explanation(reading: TokenReading, labels: Sequence[str], marks: Sequence[Mark] | None = None) -> Explanation:
    """What became of a text.

    Args:
        reading: of it.
        labels: names of the classes.
        marks: a tagger's words; without them the text is split at spaces and punctuation.
    """
    return Explanation(reading, words_of(reading, marks), tuple(labels))


def html(shown: Explanation) -> str:
    """The explanation as one self-contained page.

    Raises:
        SoftpruneError: without jinja2.
    """
    from softprune.report.templating import environment

    template = environment(Path(__file__).parent / "templates").get_template("explain.html.j2")
    layers = shown.reading.layers
    shades = [round(8 + 82 * (layer + 1) / (layers + 1)) for layer in range(layers)]
    return template.render(
        shown=shown,
        reading=shown.reading,
        shades=shades,
        dropped=shown.dropped_after(),
        alive=shown.reading.alive(),
    )


def _between(text: str, start: int, end: int, last: int) -> Iterator[Segment]:
    """Text between words, with what lies behind the last token apart."""
    border = min(max(start, last), end)
    if start < border:
        yield Segment(printable(text[start:border]))
    if border < end:
        yield Segment(printable(text[border:end]), unread=bool(text[border:end].strip()))


def _shaded(text: str, left: int, layers: int, plain: bool) -> Text:
    """A word in its colour, with its layer's number below the line; bold where it was kept."""
    if left == layers:
        # Without colour, reversed video is still there on most terminals, but not in a file: brackets are.
        return Text(f"[{text}]") if plain else Text(text, style=KEPT_STYLE)
    part = left / max(layers - 1, 1)
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(FAINT, STRONG, strict=True))
    number = str(left).translate(SUBSCRIPTS)
    return Text(text + number, style="" if plain else f"rgb({red},{green},{blue})")
