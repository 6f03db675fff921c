"""Run a recipe, but stop for ever in the middle of a phase, so that the test can kill it there.

    python tests/kill_driver.py PHASE NTH MARKER RECIPE OUT

Every file of a run is written through one function. While the run is in PHASE, the NTH file of real work (run.json
itself doesn't count) is not written: the marker file appears instead, and the process sleeps. Of a comparison, PHASE is
CELL:PHASE for a phase of one of its runs, or file:NAME for the NTH write of a file of that name; of a study the latter.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from softprune.config import CompareRecipe, Recipe, TokensRecipe, kind_of, load_config
from softprune.runs import atomic_io


def stop_inside(phase: str, nth: int, marker: Path, out: Path) -> None:
    """Replace the one writing function by one that stops where it is told to."""
    write, seen = atomic_io.write_bytes, 0
    cell, _, phase = phase.rpartition(":")
    out = out / "cells" / cell if cell and cell != "file" else out

    def stopping(path: Path, *args: Any, **options: Any) -> None:
        nonlocal seen
        if cell == "file":
            seen += path.name == phase
            if path.name == phase and seen == nth:
                marker.write_text(path.name)
                time.sleep(600)
        elif path.name != "run.json" and (out / "run.json").is_file():
            now = json.loads((out / "run.json").read_text())["phase"]
            seen += now == phase
            if now == phase and seen == nth:
                marker.write_text(path.name)
                time.sleep(600)
        write(path, *args, **options)

    atomic_io.write_bytes = stopping


def main() -> None:
    """Run."""
    phase, nth, marker, recipe, out = sys.argv[1:]
    if phase != "none":
        stop_inside(phase, int(nth), Path(marker), Path(out))
    run(recipe, Path(out), lambda folder: atomic_io.write_bytes(folder / "report.txt", b""))


def run(recipe: str, out: Path, finish: Callable[[Path], None]) -> None:
    """Run a recipe of any kind."""
    if kind_of(recipe) == "tokens":
        from softprune.pipelines.token_pruning import execute as execute_tokens

        of_tokens = load_config(TokensRecipe, recipe)
        execute_tokens(of_tokens, out, "kill test", of_tokens.dump(), finish=finish)
        return
    if kind_of(recipe) == "compare":
        from softprune.studies.comparison.runner import execute as execute_compare

        of_methods = load_config(CompareRecipe, recipe)
        execute_compare(of_methods, out, "kill test", of_methods.dump(), finish=finish)
        return
    if kind_of(recipe) == "study":
        conduct(recipe, out)
        return
    from softprune.pipelines.adapt import execute as adapt
    from softprune.pipelines.xprompt import execute as tune_or_prune

    loaded = load_config(Recipe, recipe)
    execute = adapt if loaded.kind == "adapt" else tune_or_prune
    execute(loaded, out, "kill test", loaded.dump(), finish=finish)


def conduct(recipe: str, out: Path) -> None:
    """Conduct a study, with the tests' own experiments beside those that ship."""
    sys.path.insert(0, str(Path(__file__).parent / "studies"))
    import small_studies

    from softprune.config import load_study
    from softprune.studies import runner

    runner.EXPERIMENTS = small_studies.EXPERIMENTS  # type: ignore[misc]
    runner.execute(load_study(recipe), out.name, out.parent, "kill test")


if __name__ == "__main__":
    main()
