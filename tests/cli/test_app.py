"""The help that lists the commands, and the flags that they share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from softprune.cli.app import app
from softprune.cli.options import OLD_FLAGS, RECIPE_FLAGS, SCHEMAS, recipe_flags
from softprune.config import flat_fields


@pytest.mark.parametrize("group", [(), ("tasks",)])
def test_no_command_is_described_in_part(
    softprune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, group: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = softprune(*group, "--help")
    commands = answer.out.partition("Commands:\n")[2].splitlines()
    assert len(commands) > 3
    assert [line for line in commands if line.endswith("...") or not line.endswith(".")] == []


def commands(group: Any, path: str = "") -> dict[str, Any]:
    found = {}
    for name, command in group.commands.items():
        full = f"{path} {name}".strip()
        found |= commands(command, full) if hasattr(command, "commands") else {full: command}
    return found


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("kind", SCHEMAS)
def test_recipe_flags_are_keys_of_their_recipe(kind: str) -> None:
    flags = recipe_flags(kind)
    assert set(flags.values()) <= {field.key for field in flat_fields(SCHEMAS[kind])}
    assert len(set(flags.values())) == len(flags)
    assert flags.keys() <= {flag for flag, _, _ in RECIPE_FLAGS}


@pytest.mark.parametrize("command", OLD_FLAGS)
def test_old_flags_have_gone_from_the_help_and_lead_to_new_ones(command: str) -> None:
    options = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    assert options.isdisjoint(OLD_FLAGS[command])
    assert set(OLD_FLAGS[command].values()) <= options


@pytest.mark.parametrize("form", ["--output {out}", "--output={out}"])
def test_an_old_flag_works_with_a_notice(softprune: Callable[..., Any], tmp_path: Path, form: str) -> None:
    np.save(tmp_path / "mine.npy", np.ones((3, 8), dtype=np.float32))
    out = tmp_path / "mine.safetensors"
    answer = softprune("import", str(tmp_path / "mine.npy"), *form.format(out=out).split())
    assert (answer.code, out.is_file()) == (0, True)
    assert answer.err == "note: --output is called --out now; the old name stops working in version 0.3\n"


def test_an_old_flag_that_means_something_else_elsewhere(softprune: Callable[..., Any]) -> None:
    assert "--fresh-seeds" in softprune("xprompt", "--seeds", "-1", "oops").err
    assert "--fresh-seeds" not in softprune("compare", "--seeds", "-1", "oops").err


SHARED = (
    "--backbone",
    "--task",
    "--data",
    "--device",
    "--dtype",
    "--seed",
    "--threads",
    "--force",
    "--input",
    "--max-length",
)


def test_a_flag_says_the_same_in_every_command() -> None:
    """Up to its default, which is the command's own, and the recipe key behind it."""
    texts: dict[str, set[str]] = {flag: set() for flag in SHARED}
    for name, command in COMMANDS.items():
        if name.startswith(("tokens", "study", "compare")):
            continue
        for parameter in command.params:
            for flag in texts.keys() & set(parameter.opts):
                text = re.sub(r" \[default: [^\]]*\]| \([a-z._]+\)$", "", parameter.help)
                texts[flag].add(text.rstrip(".").lower())
    assert {flag: text for flag, text in texts.items() if len(text) > 1} == {}
