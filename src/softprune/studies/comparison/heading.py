"""A line over what a run shows of itself, which isn't there where the run is refused before it shows anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleRenderable, RenderHook

from softprune.terminal import literal


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
    """The first thing that is printed meanwhile stands under this line; where nothing is printed, nor is the line."""
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
