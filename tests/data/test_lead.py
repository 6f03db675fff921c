"""The first sentences of an input."""

from __future__ import annotations

import pytest

from softprune.data.metrics import lead, pair_texts
from softprune.types import Example, Segment


def example(text: str) -> Example:
    segments = (
        Segment("article:"),
        Segment(f" {text}", from_row=True),
        Segment(" TL;DR:"),
        Segment("", answer_slot=True),
    )
    return Example("0", 0, segments, ("its own summary",), 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is. Two is! Three? Four stays out.", "One is. Two is! Three?"),
        ("No more than this", "No more than this"),
        ('He said: "Go." She went. They stayed. It rained.', 'He said: "Go." She went. They stayed.'),
        (
            "It cost 3.50 and e.g. nothing else. 20 came. A third one. No.",
            "It cost 3.50 and e.g. nothing else. 20 came. A third one.",
        ),
        ("A headline\n\nFirst sentence. Second one. Third one.", "A headline First sentence. Second one."),
        ("", ""),
        ("Это раз. Это два! А это три? Лишнее.", "Это раз. Это два! А это три?"),
        ("Così è. È due. «Éco» tre. Quattro.", "Così è. È due. «Éco» tre."),
        ("这是一。这是二！这是三？多余。", "这是一。 这是二！ 这是三？"),
        ("هذا واحد. هل هذا اثنان؟ هذا ثلاثة. زائد.", "هذا واحد. هل هذا اثنان؟ هذا ثلاثة."),
        ("यह एक है। यह दो है। यह तीन है। और नहीं।", "यह एक है। यह दो है। यह तीन है।"),
    ],
)
def test_three_sentences(text, expected):
    assert lead(example(text)) == expected


def test_as_many_as_asked():
    assert lead(example("One. Two. Three."), 1) == "One."


def test_beside_the_examples_own():
    found = pair_texts(("a text",), (example("One."),))
    assert (found.texts, found.references, found.losses) == (("a text",), ("its own summary",), ())
