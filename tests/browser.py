"""A page in headless Chromium: what it became, what it said on the console, what it asked of the network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_PAGE = "not an origin"
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


def browse(page: Path, profile: Path) -> Seen:
    """Open a page with a new profile in an empty folder. Nothing really leaves: the proxy is a closed port."""
    assert CHROMIUM is not None, "install Chromium: these tests fail rather than skip"
    log = profile / "net.json"
    ways = ("--proxy-server=127.0.0.1:9", f"--user-data-dir={profile}", f"--log-net-log={log}")
    command = [CHROMIUM, *QUIET, *ways, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Seen(done.stdout, re.findall(r"CONSOLE.*", done.stderr), requests_of(json.loads(log.read_text())))


def requests_of(log: dict[str, Any]) -> list[str]:
    """Addresses that a page asked for; those without an origin are the browser's own (updates, the time)."""
    begin = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event.get("params", {}) for event in log["events"] if event["type"] == begin]
    pages = [params["url"] for params in asked if params.get("initiator", NO_PAGE) != NO_PAGE]
    return [url for url in pages if not url.startswith(("file:", "data:"))]
