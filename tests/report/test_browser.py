"""The page in a real browser: it says nothing on the console, asks the network for nothing, and runs no text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from browser import Seen
from browser import browse as open_page
from softprune.report import write_report

pytestmark = pytest.mark.real

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Seen]:
    return lambda page: open_page(page, tmp_path_factory.mktemp("profile"))


def test_the_page_is_silent_and_alone(xprompt_run: Path, browse: Callable[[Path], Seen]) -> None:
    seen = browse(write_report(xprompt_run))
    assert "softprune report</title>" in seen.document
    assert seen.document.count("<img") == 8
    assert seen.console == []
    assert seen.requests == []


def test_a_text_with_a_script_shows_as_text(xprompt_run: Path, browse: Callable[[Path], Seen]) -> None:
    attack = "<script>document.title='taken'; fetch('http://evil.test/')</script><img src=http://evil.test/x.png>"
    for name in ("winner", "control"):
        path = xprompt_run / "predictions" / f"{name}.jsonl"
        path.write_text(path.read_text().replace(HOSTILE, attack))
    seen = browse(write_report(xprompt_run))
    assert "&lt;script&gt;document.title='taken'" in seen.document
    assert "<title>taken" not in seen.document
    assert (seen.console, seen.requests) == ([], [])


def test_a_page_that_is_neither_silent_nor_alone_is_seen(tmp_path: Path, browse: Callable[[Path], Seen]) -> None:
    """The negative control of the two above."""
    page = tmp_path / "page.html"
    text = (
        "<title>a</title><img src='http://evil.test/x.png'><script>document.title='taken'; console.error('no')</script>"
    )
    page.write_text(text)
    seen = browse(page)
    assert "<title>taken" in seen.document
    assert any("no" in line for line in seen.console)
    assert any("evil.test" in line for line in seen.requests)
