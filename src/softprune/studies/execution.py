"""One run of a study or a comparison: executed in this process, with a line over what it shows of itself."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from rich.console import Console, ConsoleRenderable, RenderHook

from softprune.config import Recipe
from softprune.config.registry import Registry
from softprune.terminal import literal
from softprune.training.free_memory import give_back

Execute = Callable[..., bool]

EXECUTE: Final[Registry[Execute]] = Registry(
    "kind of run",
    {
        "tune": "softprune.pipelines.xprompt:execute",
        "xprompt": "softprune.pipelines.xprompt:execute",
        "adapt": "softprune.pipelines.adapt:execute",
    },
)


def execute_run(recipe: Recipe, path: Path, command: str, text: str, console: Console | None) -> None:
    """Makes a run, or leaves it as it is where it is complete.

    Args:
        recipe: of the run.
        path: its folder.
        command: what the user typed.
        text: the keys of its recipe that were named, as YAML.
        console: where progress is shown; None for silence.
    """
    # What an earlier run held must not count as memory of this one.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()
    EXECUTE[recipe.kind](recipe, path, command, text, finish=None, console=console)


class _Heading(RenderHook):
    """Puts its line before what is printed next, once."""

    def __init__(self, line: str) -> None:
        self.line: str | None = line

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is printed, the line first."""
        line, self.line = self.line, None
        return renderables if line is None else [literal(line), *renderables]


@contextmanager
def headed(console: Console | None, line: str) -> Iterator[None]:
    """Puts this line over the first thing that is printed meanwhile; where nothing is printed, nor is the line.

    So a run that is refused before it shows anything leaves no line.
    """
    if console is None:
        yield
        return
    heading = _Heading(line)
    console.push_render_hook(heading)
    try:
        yield
    finally:
        heading.line = None  # a live display that was broken off leaves its own hook, and that one is taken away here
        console.pop_render_hook()
