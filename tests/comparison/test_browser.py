"""The page of a comparison in a real browser: it says nothing on the console and asks the network for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparisons import found

from browser import browse
from softprune.studies.comparison.page import write_page

pytestmark = pytest.mark.real


def test_the_page_is_silent_and_alone(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text("kind: compare\n")
    attack = "<script>document.title='taken'; fetch('http://evil.test/')</script><img src=http://evil.test/x.png>"
    page = write_page(found(task=attack, not_defined={"ia3": attack}), tmp_path)
    seen = browse(page, tmp_path / "profile")
    assert "<title>taken" not in seen.document
    assert "&lt;script&gt;document.title='taken'" in seen.document
    assert seen.document.count('<img src="data:') == 1
    assert (seen.console, seen.requests) == ([], [])
