"""The help that lists the commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("group", [(), ("tasks",)])
def test_no_command_is_described_in_part(
    softprune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, group: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = softprune(*group, "--help")
    commands = answer.out.partition("Commands:\n")[2].splitlines()
    assert len(commands) > 3
    assert [line for line in commands if line.endswith("...") or not line.endswith(".")] == []
