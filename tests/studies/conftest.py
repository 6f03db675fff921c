from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from softprune.config import Study
from softprune.studies.study_context import StudyContext

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def small(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Study]:
    """A study of two variants on a random tiny model and the bundled task, with overrides."""
    from small_studies import study_of

    file = tmp_path_factory.mktemp("small") / "small.yaml"
    return lambda *overrides: study_of(tiny_models("sentence"), file, *overrides)


@pytest.fixture(scope="session")
def conducted(small: Callable[..., Study], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study; leave it as it is."""
    from softprune.studies.runner import execute

    return execute(small(), "small", tmp_path_factory.mktemp("conducted"), "softprune study run small")


@pytest.fixture(scope="session")
def pruned(
    tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], StudyContext]:
    """The study of an experiment on one small XPrompt run, which all of them share."""
    from pruned import bench_of, pruned_study

    root = tmp_path_factory.mktemp("pruned")
    return lambda experiment: bench_of(pruned_study(experiment, tiny_models("sentence"), root), root)
