"""What experiment trackers are told."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from softprune.errors import SoftpruneError
from softprune.training.loop import Point, Watch
from softprune.training.progress import Display, Trackers

POINTS = [
    Point("a", epoch=2, step=10, train_loss=0.5, select_loss=0.6, select=0.75, seconds=4.0),
    Point("b", epoch=2, step=10, train_loss=0.7, select_loss=0.9, select=0.50, seconds=4.0),
]


class Tracker:
    """A tracker that notes when it is closed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def finish(self) -> None:
        Recorder.last.ended = True


class Recorder:
    """Stands for accelerate.Accelerator with one tracker that is installed."""

    def __init__(self, log_with: list[str], project_dir: str) -> None:
        if "nonsense" in log_with:
            raise ValueError("nonsense is not a tracker")
        self.folder, self.logged, self.config, self.ended = project_dir, [], {}, False
        self.trackers = [Tracker(name) for name in log_with if name != "absent"]
        Recorder.last = self

    last: Any = None

    def init_trackers(self, project: str, config: dict[str, str]) -> None:
        self.config = {"project": project, **config}

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr("accelerate.Accelerator", Recorder)
    return Recorder


def test_trackers_are_told_every_candidate(recorder: type[Recorder], tmp_path: Path) -> None:
    out = io.StringIO()
    trackers = Trackers(["tensorboard"], tmp_path, {"seed": 3}, Display(Console(file=out, width=100)))
    trackers.begin("tune", 20, 0)
    trackers.step(1, 0.5, 16)
    trackers.evaluated(POINTS)
    trackers.end()
    trackers.close()
    assert out.getvalue().strip() == "tune: epoch 2  loss 0.600  select 0.750  4 s"
    last = recorder.last
    assert last.config == {"project": "softprune", "seed": "3"}
    assert last.logged[0] == (
        1,
        {"tune/a/step": 10, "tune/a/train_loss": 0.5, "tune/a/select_loss": 0.6, "tune/a/select": 0.75},
    )
    assert [values["tune/b/select"] for _, values in last.logged[1:]] == [0.50]
    assert last.ended


@pytest.mark.parametrize(("name", "said"), [("nonsense", "not a tracker"), ("absent", "not installed")])
def test_trackers_that_cannot_be_had(recorder: type[Recorder], tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SoftpruneError, match=said):
        Trackers([name], tmp_path, {}, Watch())
