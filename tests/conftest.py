"""Tiny models for every test, without a network. Nothing heavy is imported before a test asks for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from forks import Forks
    from softprune.models.base import Backbone

# Before transformers or torch is imported: never ask the network, never draw bars, one thread for tiny matrices.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A run syncs hundreds of small files to the disk, half of its seconds. Only a power cut could tell the difference.
os.fsync = lambda descriptor: None
sys.path.insert(0, str(Path(__file__).parent))

MODELS = (
    "t5",
    "t5_v1_1",
    "mt5",
    "bart",
    "bart_scaled",
    "pegasus",
    "gpt2",
    "bloom",
    "llama",
    "bert",
    "roberta",
    "distilbert",
    "sentence",
    "sentence_bare",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: the last one of two workers shouldn't be at a file of minutes alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model by name, saved once a session. Copy it before you change it."""
    from models import build

    root = tmp_path_factory.mktemp("models")

    def folder_of(name: str) -> Path:
        folder = root / name
        return folder if folder.exists() else build(name, folder)

    return folder_of


@pytest.fixture(scope="session")
def backbone_of(tiny_models: Callable[[str], Path]) -> Callable[..., Backbone]:
    """A tiny backbone by name and dtype, loaded once a session."""
    from softprune.models import load_backbone

    loaded: dict[tuple[str, str], Backbone] = {}

    def backbone(name: str, dtype: str = "float32") -> Backbone:
        if (name, dtype) not in loaded:
            loaded[name, dtype] = load_backbone(str(tiny_models(name)), dtype=dtype, device="cpu")
        return loaded[name, dtype]

    return backbone


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts processes that needn't import torch again."""
    from forks import Forks

    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture(params=MODELS)
def model_name(request: pytest.FixtureRequest) -> str:
    """Every tiny model in turn."""
    return str(request.param)


DRAWN_ANEW = ("tests/report/", "test_page.py", "test_bench.py", "test_analysis.py", "browser", "test_real_")
"""Tests of figures themselves; others are served the first one of its kind."""


@pytest.fixture(scope="session", autouse=True)
def small_costs() -> Iterator[None]:
    """What takes most of a small run's time, and isn't what most tests test: done less often.

    Each kind of figure is drawn once a session, a latency is the median of a few calls, the commands' parsers are built
    once, and the garbage collector leaves alone what torch and transformers hold.
    """
    import gc

    import typer

    from softprune.pipelines import adapt, token_pruning, xprompt  # noqa: F401 - before they are frozen
    from softprune.report import mpl_style
    from softprune.studies import run_cache
    from softprune.training import cost

    gc.collect()
    gc.freeze()

    drawn: dict[tuple[object, ...], list[bytes]] = {}
    really = mpl_style.render

    def render(draw: mpl_style.Draw, theme: mpl_style.Theme, *forms: str) -> list[bytes]:
        if any(name in os.environ.get("PYTEST_CURRENT_TEST", "") for name in DRAWN_ANEW):
            return really(draw, theme, *forms)
        key = getattr(draw, "func", draw).__qualname__, forms, theme is mpl_style.LIGHT
        if key not in drawn:
            drawn[key] = really(draw, theme, *forms)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mpl_style, "render", render)
        patch.setattr(cost, "CALLS", cost.FEWEST)
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        patch.setattr(run_cache, "gc", SimpleNamespace(collect=lambda: 0))  # a second between the runs of a study
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Runs pin threads and determinism for the whole process: put both back."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
