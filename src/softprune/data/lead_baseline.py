"""The first sentences of a text: the bar of summaries, since reporters put what matters first."""

from __future__ import annotations

import re

from softprune.types import Example, Scores

SENTENCES = 3
NAME = f"first {SENTENCES} sentences"

# A mark that ends sentences with what closes behind it, and the letter or digit behind what opens the next one; marks
# of full width have no blank behind them. "(e.g. this)" goes on: a small letter begins no sentence.
_END = re.compile(
    r"""(?:(?<=[.!?؟۔։।॥።។៕။])["'”’»›)\]]*\s+|(?<=[。！？｡])["'”’»›)\]」』）】]*\s*)(?=["'“‘«‹„¿¡(\[「『（【]*([^\W_]))"""
)


def lead(example: Example, sentences: int = SENTENCES) -> str:
    """The first sentences of what the example holds of its row; a line break ends one too."""
    first: list[str] = []
    for line in example.content.splitlines():
        start = 0
        for match in _END.finditer(line):
            if not match[1].islower():
                first.append(line[start : match.end()].strip())
                start = match.end()
        first.append(line[start:].strip())
        first = [sentence for sentence in first if sentence]
        if len(first) >= sentences:
            break
    return " ".join(first[:sentences])


def pair_texts(texts: tuple[str, ...], examples: tuple[Example, ...]) -> Scores:
    """Texts beside the examples' own, as a metric of written texts reads them."""
    return Scores(texts=texts, references=tuple(example.answers[0] for example in examples))
