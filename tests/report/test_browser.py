"""The page in a real browser: it says nothing on the console, asks the network for nothing, and runs no text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from softprune.report import write_report

pytestmark = pytest.mark.real

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_PAGE = "not an origin"
HOSTILE = "<script>alert('x')</script>"
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--virtual-time-budget=3000",
)


@dataclass
class Seen:
    """What the browser did with a page: its document afterwards, console lines, and requests that left it."""

    document: str
    console: list[str]
    requests: list[str]


@pytest.fixture
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Seen]:
    """Opens a page in headless Chromium with a new profile. Nothing really leaves: the proxy is a closed port."""

    def open_page(page: Path) -> Seen:
        assert CHROMIUM is not None, "install Chromium: these tests fail rather than skip"
        profile = tmp_path_factory.mktemp("profile")
        log = profile / "net.json"
        ways = ("--proxy-server=127.0.0.1:9", f"--user-data-dir={profile}", f"--log-net-log={log}")
        command = [CHROMIUM, *QUIET, *ways, "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return Seen(done.stdout, re.findall(r"CONSOLE.*", done.stderr), requests_of(json.loads(log.read_text())))

    return open_page


def requests_of(log: dict[str, Any]) -> list[str]:
    """Addresses that a page asked for; those without an origin are the browser's own (updates, the time)."""
    begin = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event.get("params", {}) for event in log["events"] if event["type"] == begin]
    pages = [params["url"] for params in asked if params.get("initiator", NO_PAGE) != NO_PAGE]
    return [url for url in pages if not url.startswith(("file:", "data:"))]


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
