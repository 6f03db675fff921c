"""One text and what became of its words, in a terminal and as a page.

Every word is shaded by the layer after which it was dropped, and marked with that layer's number, so that nothing
depends on colour alone; words that were kept to the end are bold and have no number. Layers count from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from softprune.printable import printable
from softprune.report.formatting import percent
from softprune.token_pruning.analysis.words import Word
from softprune.token_pruning.model import TokenTrace

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
FAINT, STRONG = (118, 118, 118), (220, 110, 40)
"""Terminal colours from the first layer to the last: gray to orange, readable on black and on white."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the text."""

    text: str  # which a terminal or a page may show as it is
    left: int | None = None  # of the word that it is; None between words
    unread: bool = False  # whether it is text behind the last token that was read
    pos: str = ""  # the word's part of speech, where a tagger found it


@dataclass(frozen=True, slots=True)
class Explanation:
    """One text, ready to be shown; `print` of rich shows it in a terminal."""

    trace: TokenTrace
    words: tuple[Word, ...]  # that the model read
    labels: tuple[str, ...]  # names of the classes

    def segments(self) -> Iterator[Segment]:
        """The whole text, cut at the borders of words; together they are the text."""
        text, place = self.trace.text, 0
        last = max((end for (_, end) in self.trace.offsets), default=0)
        for word in self.words:
            start, end = word.mark.start, word.mark.end
            if place < start:
                yield Segment(printable(text[place:start]))
            yield Segment(printable(text[start:end]), word.left, pos=word.mark.pos)
            place = end
        border = min(max(place, last), len(text))  # truncation may end within a word, which is shown as a whole
        if place < border:
            yield Segment(printable(text[place:border]))
        if border < len(text):
            yield Segment(printable(text[border:]), unread=bool(text[border:].strip()))

    def dropped_after(self) -> list[int]:
        """The layers after which words were dropped."""
        return sorted({word.left for word in self.words} - {self.trace.layers})

    def prediction(self) -> str:
        """Predicted class and its probability, and the true one where it is known."""
        trace = self.trace
        text = f"{printable(self.labels[trace.predicted])} ({percent(trace.probabilities[trace.predicted])}%)"
        if trace.gold is None:
            return text
        if trace.gold == trace.predicted:
            return f"{text}, right"
        return f"{text}, wrong: it is {printable(self.labels[trace.gold])}"

    def kept_words(self) -> str:
        """How many words were kept, and what was cut."""
        kept = sum(word.left == self.trace.layers for word in self.words)
        cut = f"; {self.trace.cut} tokens at the end were cut off, unread" if self.trace.cut else ""
        return f"{kept} of {len(self.words)} words kept to the end{cut}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain, layers = console.no_color or console.color_system is None, self.trace.layers
        yield Text(f"prediction: {self.prediction()}", style="bold")
        for place, name in enumerate(self.labels):
            yield Text(f"  {percent(self.trace.probabilities[place]):>5}%  {printable(name)}")
        yield Text()
        line = Text()
        for segment in self.segments():
            if segment.left is not None:
                line.append_text(_shade(segment.text, segment.left, layers, plain))
            elif segment.unread and not plain:
                line.append(segment.text, style="dim strike")
            else:
                line.append(segment.text)
        yield line
        yield Text()
        legend = Text("left after layer ")
        for layer in self.dropped_after():
            legend.append_text(_shade("word", layer, layers, plain)).append("  ")
        yield legend.append(" kept to the end: ").append_text(_shade("word", layers, layers, plain))
        yield Text(self.kept_words())
        alive = ", ".join(f"{layer}: {count}" for layer, count in enumerate(self.trace.alive()))
        yield Text(f"{len(self.trace.left)} tokens read; left after layer {alive}")


def html(shown: Explanation) -> str:
    """The explanation as one self-contained page."""
    from softprune.report.templating import environment

    template = environment(Path(__file__).parent / "templates").get_template("explain.html.j2")
    layers = shown.trace.layers
    return template.render(
        shown=shown,
        trace=shown.trace,
        shades=[round(8 + 82 * (layer + 1) / (layers + 1)) for layer in range(layers)],  # percent of the colour
        dropped=shown.dropped_after(),
        alive=shown.trace.alive(),
    )


def _shade(text: str, left: int, layers: int, plain: bool) -> Text:
    """A word in its colour, with its layer's number below the line; bold where it was kept."""
    if left == layers:
        # Without colour, reversed video is still there on most terminals, but not in a file: brackets are.
        return Text(f"[{text}]") if plain else Text(text, style="bold reverse")
    part = left / max(layers - 1, 1)
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(FAINT, STRONG, strict=True))
    marked = text + str(left).translate(SUBSCRIPTS)
    return Text(marked) if plain else Text(marked, style=f"rgb({red},{green},{blue})")
