"""Runs in processes of their own that are killed in the middle of a phase; see kill_driver.py."""

from __future__ import annotations

from pathlib import Path

from forks import Forked, Forks

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
