from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from softprune.cli import main

sys.path.insert(0, str(Path(__file__).parent))


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def softprune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs the command line in this process."""

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["softprune", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        text = capsys.readouterr()
        code = caught.value.code
        return Answer(code if isinstance(code, int) else 0 if code is None else 1, text.out, text.err)

    return call
