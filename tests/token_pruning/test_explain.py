from __future__ import annotations

import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
from fakes import make_trace
from rich.console import Console

from softprune.token_pruning.analysis.explain import Explanation, html
from softprune.token_pruning.analysis.words import find_words
from softprune.token_pruning.model import TokenTrace

LABELS = ("bad", "good")
HOSTILE = "<script>alert('x')</script> [bold]no[/bold] \x1b[31mred"


def explained(trace: TokenTrace, labels: tuple[str, ...] = LABELS) -> Explanation:
    return Explanation(trace, find_words(trace), labels)


def shown(text: str = "the cat runs fast", cut: int = 0) -> Explanation:
    pieces = [("the", 1), ("cat", 3), ("runs", 2), ("fast", 3)]
    trace = make_trace(text, pieces, predicted=1, gold=0)
    return explained(dataclasses.replace(trace, cut=cut))


def hostile() -> Explanation:
    pieces = [(piece, 1) for piece in re.findall(r"\w+|[^\w\s]", HOSTILE)]
    return explained(make_trace(HOSTILE, pieces), ("<b>bad</b>", "good"))


def printed(made: Explanation, **settings: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=100, **settings).print(made)  # type: ignore[arg-type]
    return stream.getvalue()


def test_without_colour_numbers_and_brackets_tell_it() -> None:
    said = printed(shown(), no_color=True)
    assert "the₁ [cat] runs₂ [fast]" in said
    assert "\x1b" not in said
    assert "prediction: good (90.0%), wrong: it is bad" in said
    assert "left after layer word₁  word₂   kept to the end: [word]" in said
    assert "2 of 4 words kept to the end" in said
    assert "6 tokens read; left after layer 0: 6, 1: 5, 2: 4" in said


def test_no_color_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "[cat]" in printed(shown(), force_terminal=True)


def test_in_colour_the_number_stays() -> None:
    said = printed(shown(), force_terminal=True, color_system="truecolor")
    assert "\x1b[1;7mcat\x1b[0m" in said  # bold and reversed
    early, late = (re.search(rf"\x1b\[38;2;([\d;]+)m{word}", said) for word in ("the₁", "runs₂"))
    assert early is not None
    assert late is not None
    assert early.group(1) != late.group(1)


def test_what_was_cut_is_told() -> None:
    made = shown("the cat runs fast and far away", cut=3)
    assert [s.text for s in made.segments() if s.unread] == [" and far away"]
    assert "3 tokens at the end were cut off" in printed(made)
    assert 'class="unread" title="not read: cut off"> and far away</span>' in html(made)


def test_segments_are_the_text() -> None:
    text = "  the\n cat   runs fast… "
    assert "".join(segment.text for segment in shown(text).segments()) == text


def test_a_terminal_obeys_no_text() -> None:
    said = printed(hostile(), force_terminal=True, color_system="truecolor")
    assert "\x1b[31m" not in said
    assert "bold" in said


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.titles: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self.titles += [value for name, value in attrs if name == "title" and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_the_page_escapes_everything() -> None:
    page = html(hostile())
    tags = parsed(page)
    assert "script" not in tags.opened
    assert "b" not in tags.opened
    assert "<script" not in page
    assert "alert" in tags.text


def test_the_page_needs_nothing_else_and_tells_by_more_than_colour() -> None:
    page = html(shown())
    tags = parsed(page)
    assert not re.search(r"https?://|<link|src=|@import|url\(", page)
    assert "default-src 'none'" in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert tags.titles.count("kept to the end") == 2
    assert "left after layer 1" in tags.titles
    assert "runs<sub>2</sub>" in page


def test_a_text_without_tokens() -> None:
    trace = TokenTrace("", (), (), (), 3, 0, (1.0, 0.0))
    made = explained(trace)
    assert "0 of 0 words" in printed(made)
    assert "0 of 0 words" in html(made)
