"""Runs that are killed in the middle of a phase, in processes of their own (kill_driver.py), or die after a save."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forks import Forked, Forks
from softprune.training.jobs import FolderKeeper

DRIVER = Path(__file__).parent / "kill_driver.py"


def start(forks: Forks, recipe: Path, out: Path, where: str = "none", nth: int = 0) -> Forked:
    """Start a run; given a phase it stops there for ever, and the marker file appears."""
    return forks.start([DRIVER, where, nth, marker(out, where, nth), recipe, out], out.with_suffix(".log"))


def marker(out: Path, where: str, nth: int) -> Path:
    return out.with_suffix(f".{where}-{nth}")


def finish(forks: Forks, recipe: Path, out: Path) -> None:
    """Run to the end."""
    process = start(forks, recipe, out)
    assert process.wait() == 0, process.log.read_text()


def kill_inside(forks: Forks, recipe: Path, out: Path, where: str, nth: int) -> None:
    """Start the run, wait until it stands in the phase, and kill its whole process group."""
    process = start(forks, recipe, out, where, nth)
    process.wait_for(marker(out, where, nth))
    process.kill()
    assert not (out / "COMPLETE").exists()


class DiedError(Exception):
    """Of a run that ends in the middle."""


@contextmanager
def dying_after_saves(every: int = 1) -> Iterator[None]:
    """Within the block, a run raises `DiedError` after each saved evaluation, or after each `every`-th of all."""
    save, saves = FolderKeeper.save, 0

    def die_after_saving(*arguments: Any) -> None:
        nonlocal saves
        save(*arguments)
        saves += 1
        if saves % every == 0:
            raise DiedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderKeeper, "save", die_after_saving)
        yield


def finish_in_tries(work: Callable[[], object], out: Path, every: int = 1, most: int = 40) -> int:
    """Do work on a run's folder until it is complete, though it dies after saves; how many tries that took."""
    tries = 0
    with dying_after_saves(every):
        while not (out / "COMPLETE").exists():
            tries += 1
            assert tries < most
            try:
                work()
            except DiedError:
                assert json.loads((out / "run.json").read_text())["status"] == "failed"
    return tries
