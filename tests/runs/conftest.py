from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from softprune.runs.run_folder import RunFolder

RESOLVED = {"schema": 1, "kind": "xprompt", "seed": 3, "tuning": {"lr": 0.3, "weight_decay": 1e-5}}


@pytest.fixture
def resolved() -> dict[str, object]:
    return RESOLVED


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., RunFolder]:
    """Opens `tmp_path/run` with the given changes to the recipe."""

    def open_run(may_change: Collection[str] = (), **changes: object) -> RunFolder:
        return RunFolder.open(
            tmp_path / "run",
            recipe_text="kind: xprompt  # mine\n",
            resolved=RESOLVED | changes,
            kind="xprompt",
            command="softprune run x",
            may_change=may_change,
        )

    return open_run
