from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mood import write_mood

if TYPE_CHECKING:
    from softprune.adapters.prefix import Prefix
    from softprune.models.base import Backbone

sys.path.insert(0, str(Path(__file__).parent))

THINGS = ("cast", "scene", "window", "children")


@pytest.fixture(scope="session")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of one's own: 24 training texts and 12 that are reported on, all different."""
    return write_mood(tmp_path_factory.mktemp("mood"), THINGS)


@pytest.fixture
def attached() -> Iterator[Callable[..., Prefix]]:
    """`new_prefix` that detaches when the test is over: backbones are shared by the session."""
    from softprune.adapters.base import AdapterPlan
    from softprune.adapters.prefix import new_prefix

    made: list[Prefix] = []

    def attach(backbone: Backbone, project: bool = False, seed: int = 0, hidden: int | None = 24) -> Prefix:
        plan = AdapterPlan("prefix" if project else "p-tuning-v2", tokens=5, hidden=hidden)
        made.append(new_prefix(backbone, plan, seed))
        return made[-1]

    yield attach
    for prefix in made:
        prefix.detach()
