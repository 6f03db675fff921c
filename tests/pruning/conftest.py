from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mood import write_mood

if TYPE_CHECKING:
    from whole_runs import Models, Run

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "training")]

CAST = ("cast", "scene", "window", "children", "cheese")


@pytest.fixture(scope="session")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of one's own: 24 training texts and 15 that are reported on, all different."""
    return write_mood(tmp_path_factory.mktemp("mood"), CAST)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory, tiny_models: Models, task_file: Path) -> Callable[[str], Run]:
    """The finished run of each case, once a session."""
    from whole_runs import CASES, TAUGHT, execute_one

    runs: dict[str, Run] = {}

    def run(case: str) -> Run:
        if case not in runs:
            out = tmp_path_factory.mktemp("runs") / "run"
            runs[case] = execute_one(tiny_models("sentence"), task_file, out, *(CASES | TAUGHT)[case])
        return runs[case]

    return run
