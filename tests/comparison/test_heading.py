"""The line over what a run shows: before it, once, and not where nothing is shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from softprune.studies.run_cache import under_heading


def text_of(console: Console) -> str:
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_it_stands_before_the_first_line_only() -> None:
    console = Console(file=io.StringIO(), width=80)
    with under_heading(console, "1 of 2: prompt"):
        console.print("epoch 1")
        console.print("epoch 2")
    console.print("done")
    assert text_of(console) == "1 of 2: prompt\nepoch 1\nepoch 2\ndone\n"


def test_what_shows_nothing_has_no_line() -> None:
    console = Console(file=io.StringIO(), width=80)
    with pytest.raises(ValueError, match="refused"), under_heading(console, "1 of 2: prompt"):
        raise ValueError("refused")
    console.print("done")
    assert text_of(console) == "done\n"
    with under_heading(None, "1 of 2: prompt"):
        pass


def test_it_stands_over_a_live_display() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with under_heading(console, "1 of 2: prompt"), Progress(console=console, transient=True) as progress:
        progress.add_task("training", total=2)
    assert text_of(console).count("1 of 2: prompt") == 1
    assert text_of(console).index("1 of 2: prompt") < text_of(console).index("training")
