"""A run of a study or a comparison, and how it is made once."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console, ConsoleRenderable, RenderHook
from rich.text import Text

from softprune.config import Recipe
from softprune.config.registry import Registry
from softprune.config.yaml_io import yaml_text
from softprune.errors import ManyErrors, SoftpruneError
from softprune.runs.job_folder import FolderHeld
from softprune.terminal import literal
from softprune.training.memory import give_back

EXECUTE: Final[Registry[Callable[..., bool]]] = Registry(
    "kind of run",
    {
        "tune": "softprune.pipelines.xprompt:execute",
        "xprompt": "softprune.pipelines.xprompt:execute",
        "adapt": "softprune.pipelines.adapt:execute",
    },
)
_COMMAND: Final = "softprune study run"  # in the record of a shared run, which belongs to no single study
_LOOK: Final = 0.5  # seconds between looks at a run that another process makes


@dataclass(frozen=True, slots=True)
class Spec:
    """One run of a study or a comparison."""

    task: str  # its id
    seed: int
    folder: str  # its name: what it is; of a study, with a digest of its recipe
    values: Mapping[str, Any] = field(repr=False)  # the keys of its recipe that were named
    recipe: Recipe = field(repr=False)


def make_run(path: Path, spec: Spec, console: Console | None) -> None:
    """Makes a run, or waits until the process that makes it has done so, and takes over where that one ends early."""
    is_waiting = False
    while not is_complete(path):
        try:
            execute_run(spec, path, _COMMAND, console)
        except FolderHeld:
            if not is_waiting:
                say(console, f"another process makes {path.name}: waiting for it")
            is_waiting = True
            time.sleep(_LOOK)
        except ManyErrors as error:
            raise ManyErrors(f"run {path.name}", error.errors) from error
        except SoftpruneError as error:
            raise SoftpruneError(f"{error.expected} (run {path.name})", error.found, error.do) from error


def execute_run(spec: Spec, path: Path, command: str, console: Console | None) -> None:
    """Makes a run in this process, or leaves it as it is where it is complete; `command` is what the user typed."""
    # What an earlier run held must not count as memory of this one.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()
    EXECUTE[spec.recipe.kind](spec.recipe, path, command, yaml_text(dict(spec.values)), finish=None, console=console)


def is_complete(path: Path) -> bool:
    """Whether a run's folder has all that it should."""
    return (path / "COMPLETE").exists()


def say(console: Console | None, line: str) -> None:
    """Shows a line of progress."""
    if console is not None:
        console.print(Text(line))


class _Heading(RenderHook):
    """Puts its line before what is printed next, once."""

    def __init__(self, line: str) -> None:
        self.line: str | None = line

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        line, self.line = self.line, None
        return renderables if line is None else [literal(line), *renderables]


@contextmanager
def under_heading(console: Console | None, line: str) -> Iterator[None]:
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
