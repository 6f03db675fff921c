"""One text and what became of its words, in a terminal and as a page.

Every word is shaded by the layer after which it was dropped, and marked with that layer's number, so that nothing
depends on colour alone; words that were kept to the end are bold and have no number. Layers count from 0.
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
from softprune.token_pruning.token_trace import TokenTrace

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
FAINT, STRONG = (118, 118, 118), (220, 110, 40)
"""Terminal colours from the first layer to the last: gray to orange, readable on black and on white."""
KEPT_STYLE = "bold reverse"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the text.

    Attributes:
        text: its characters, which a terminal or a page may show as they are.
        left: of the word that it is; None between words.
        kept: whether the word was kept to the end.
        unread: whether it is text behind the last token that was read.
        pos: the word's part of speech, where a tagger found it.
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
        trace: of the text.
        words: that the model read.
        labels: names of the classes.
    """

    trace: TokenTrace
    words: tuple[Word, ...]
    labels: tuple[str, ...]

    def segments(self) -> Iterator[Segment]:
        """The whole text, cut at the borders of words; together they are the text."""
        text, place = self.trace.text, 0
        last = max((end for (_, end) in self.trace.offsets), default=0)
        for word in self.words:
            start, end = max(word.mark.start, place), word.mark.end
            yield from _between(text, place, start, last)
            yield Segment(printable(text[start:end]), word.left, word.left == self.trace.layers, pos=word.mark.pos)
            place = end
        yield from _between(text, place, len(text), last)

    def dropped_after(self) -> list[int]:
        """The layers after which words were dropped."""
        return sorted({word.left for word in self.words} - {self.trace.layers})

    def prediction(self) -> str:
        """Predicted class and its probability, and the true one where it is known."""
        trace = self.trace
        sure = f"{percent(trace.probabilities[trace.predicted])}%"
        text = f"{printable(self.labels[trace.predicted])} ({sure})"
        if trace.gold is None:
            return text
        right = "right" if trace.gold == trace.predicted else f"wrong: it is {printable(self.labels[trace.gold])}"
        return f"{text}, {right}"

    def counts(self) -> str:
        """How many tokens are left after each layer."""
        alive = ", ".join(f"{layer}: {count}" for layer, count in enumerate(self.trace.alive()))
        return f"{len(self.trace.left)} tokens read; left after layer {alive}"

    def kept_words(self) -> str:
        """How many words were kept, and what was cut."""
        kept = sum(word.left == self.trace.layers for word in self.words)
        cut = f"; {self.trace.cut} tokens at the end were cut off, unread" if self.trace.cut else ""
        return f"{kept} of {len(self.words)} words kept to the end{cut}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = console.no_color or console.color_system is None
        yield Text(f"prediction: {self.prediction()}", style="bold")
        for place, name in enumerate(self.labels):
            yield Text(f"  {percent(self.trace.probabilities[place]):>5}%  {printable(name)}")
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
                line.append_text(_shaded(segment.text, segment.left, self.trace.layers, plain))
        return line

    def _legend(self, plain: bool) -> Text:
        line, layers = Text("left after layer "), self.trace.layers
        for layer in self.dropped_after():
            line.append_text(_shaded("word", layer, layers, plain)).append("  ")
        return line.append(" kept to the end: ").append_text(_shaded("word", layers, layers, plain))


def explain_trace(trace: TokenTrace, labels: Sequence[str], marks: Sequence[Mark] | None = None) -> Explanation:
    """What became of a text.

    Args:
        trace: of it.
        labels: names of the classes.
        marks: a tagger's words; without them the text is split at spaces and punctuation.
    """
    return Explanation(trace, words_of(trace, marks), tuple(labels))


def html(shown: Explanation) -> str:
    """The explanation as one self-contained page.

    Raises:
        SoftpruneError: without jinja2.
    """
    from softprune.report.templating import environment

    template = environment(Path(__file__).parent / "templates").get_template("explain.html.j2")
    layers = shown.trace.layers
    shades = [round(8 + 82 * (layer + 1) / (layers + 1)) for layer in range(layers)]
    return template.render(
        shown=shown,
        trace=shown.trace,
        shades=shades,
        dropped=shown.dropped_after(),
        alive=shown.trace.alive(),
    )


def _between(text: str, start: int, end: int, last: int) -> Iterator[Segment]:
    """Text between words; what follows the last token that was read is a segment of its own."""
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
