"""Processes that a test may kill, forked from one that has imported what runs need: importing that takes seconds.

As a script this is the process that forks. It reads one request a line, and answers each on a line of its own.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

PRELOADED = (
    "scipy.stats",
    "softprune.cli",
    "softprune.pipelines.adapt",
    "softprune.pipelines.token_pruning",
    "softprune.pipelines.xprompt",
    "softprune.studies.comparison.runner",
    "softprune.studies.runner",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
)
SECONDS = 240  # far more than any of these processes needs on a busy machine


@dataclass(frozen=True)
class Forked:
    """A process in a session of its own, so that it can be killed with all that it started."""

    server: Forks
    pid: int
    log: Path

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        code: int | None = self.server.ask({"poll": self.pid})
        return code

    def wait(self) -> int:
        """Its exit code."""
        until = time.monotonic() + SECONDS
        while (code := self.poll()) is None:
            assert time.monotonic() < until, f"still running: {self.log.read_text()}"
            time.sleep(0.02)
        return code

    def wait_for(self, file: Path) -> None:
        """Until the file is there; the process must not end before."""
        until = time.monotonic() + SECONDS
        while not file.exists():
            assert self.poll() is None, f"ended before {file.name}: {self.log.read_text()}"
            assert time.monotonic() < until, f"never wrote {file.name}: {self.log.read_text()}"
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill its whole process group."""
        os.killpg(self.pid, signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL


class Forks:
    """Starts scripts; only the first start pays for the imports."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def start(self, arguments: Sequence[object], log: Path, env: Mapping[str, str] | None = None) -> Forked:
        """Start a script with its arguments; what it prints goes to `log`."""
        request = {"arguments": [str(argument) for argument in arguments], "log": str(log), "env": dict(env or {})}
        return Forked(self, self.ask(request), log)

    def ask(self, request: Mapping[str, object]) -> Any:
        """What the server answers."""
        if self._server is None:
            command = [sys.executable, __file__]
            self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        """End the server, not what it forked."""
        if self._server is not None:
            self._server.communicate()


def serve() -> dict[str, Any] | None:
    """Fork for every request to start something. Returns the request in a child, and None when the test ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif not (answer := os.fork()):
            return dict(request)
        print(json.dumps(answer), flush=True)
    return None


def become(request: Mapping[str, Any]) -> None:
    """Go on in a child as `python SCRIPT ARGUMENTS` would."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["env"])
    sys.argv = request["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


def serve_first_figure() -> None:
    """Draw the first figure alone, in each theme and format: these processes are about runs, not about figures."""
    style = import_module("softprune.report.mpl_style")
    really, drawn = style.render, dict[object, list[bytes]]()

    def render(draw: Any, theme: Any, *forms: str) -> list[bytes]:
        key = forms, theme is style.LIGHT
        if key not in drawn:
            drawn[key] = really(draw, theme, *forms)
        return drawn[key]

    style.render = render


if __name__ == "__main__":
    os.fsync = lambda descriptor: None  # as in conftest.py: what a killed process wrote is there without it
    for module in PRELOADED:
        import_module(module)
    cost = import_module("softprune.training.cost")
    cost.CALLS = cost.FEWEST  # of a latency, as in conftest.py
    serve_first_figure()
    asked = serve()
    if asked is not None:
        become(asked)
