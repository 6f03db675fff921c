from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from softprune.config import CompareRecipe

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def small(tiny_models: Callable[[str], Path]) -> Callable[..., CompareRecipe]:
    """A comparison on a random tiny model, with changes."""
    from comparisons import recipe_of

    return lambda *changes: recipe_of(tiny_models("sentence"), *changes)


@pytest.fixture(scope="session")
def compared(small: Callable[..., CompareRecipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of prompt and xprompt on two seeds, a learning rate swept."""
    from softprune.studies.comparison.runner import compare_methods

    return compare_methods(small("tuning.sweep=0.3,1"), tmp_path_factory.mktemp("compared") / "out")
