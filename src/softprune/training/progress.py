"""What shows training: a live Rich display, and trackers through Accelerate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from softprune.errors import SoftpruneError
from softprune.printable import one_line
from softprune.terminal import literal
from softprune.training.loop import Point, Watch


class Display(Watch):
    """A live line per training: loss, best score on `select`, examples per second, time left.

    Where the console is no terminal, one plain line an evaluation instead.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._task: Any = None
        self._title, self._examples, self._score = "", 0, 0.0

    def begin(self, title: str, steps: int, done: int) -> None:
        """Open the line."""
        self._title, self._examples, self._score = one_line(title), 0, 0.0
        self._progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  select {task.fields[score]:.3f}"),
            TextColumn("{task.fields[rate]:.0f} examples/s"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task(self._title, total=steps, completed=done, loss=0.0, score=0.0, rate=0.0)
        self._progress.start()

    def step(self, step: int, loss: float, examples: int) -> None:
        """Move the line on."""
        if self._progress is None:
            return
        self._examples += examples
        elapsed = self._progress.tasks[0].elapsed or 0.0
        rate = self._examples / elapsed if elapsed else 0.0
        self._progress.update(self._task, completed=step, loss=loss, score=self._score, rate=rate)

    def evaluated(self, points: Sequence[Point]) -> None:
        """Show the best score of the group."""
        self._score = max(point.select for point in points)
        if not self.console.is_terminal:
            loss = sum(point.train_loss for point in points) / len(points)
            line = f"{self._title}: epoch {points[0].epoch}  loss {loss:.3f}  select {self._score:.3f}"
            self.console.print(literal(f"{line}  {points[0].seconds:.0f} s"))

    def end(self) -> None:
        """Close the line."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class Trackers(Watch):
    """Experiment trackers (tensorboard, wandb, ...) through Accelerate, beside the watch that is `shown`.

    Each evaluation is logged, single steps aren't. Names are those of `accelerate.Accelerator(log_with=...)`;
    file-based trackers write into the folder.

    Raises:
        SoftpruneError: for a tracker that Accelerate doesn't know, or that isn't installed.
    """

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any], shown: Watch) -> None:
        from accelerate import Accelerator

        try:
            self._accelerator = Accelerator(log_with=list(names), project_dir=str(folder))
        except ValueError as error:
            raise SoftpruneError("trackers that Accelerate knows", ", ".join(names), str(error)) from error
        self._accelerator.init_trackers("softprune", config={k: str(v) for k, v in config.items()})
        # Accelerate only warns of a tracker whose package isn't installed, and goes on without it.
        installed = [tracker.name for tracker in self._accelerator.trackers]
        missing = [name for name in names if name not in installed]
        if missing:
            found = f"{', '.join(missing)} not installed"
            raise SoftpruneError("installed trackers in tuning.trackers", found, "install them with pip")
        self._shown, self._title, self._count = shown, "", 0

    def begin(self, title: str, steps: int, done: int) -> None:
        """Remember what is trained."""
        self._title = title
        self._shown.begin(title, steps, done)

    def step(self, step: int, loss: float, examples: int) -> None:
        """Show it."""
        self._shown.step(step, loss, examples)

    def evaluated(self, points: Sequence[Point]) -> None:
        """Log each candidate's evaluation."""
        self._shown.evaluated(points)
        self._count += 1  # trackers want steps that grow, so evaluations are counted over the whole run
        for point in points:
            name = f"{self._title}/{point.candidate}"
            values = {
                f"{name}/step": point.step,
                f"{name}/train_loss": point.train_loss,
                f"{name}/select_loss": point.select_loss,
                f"{name}/select": point.select,
            }
            self._accelerator.log(values, step=self._count)

    def end(self) -> None:
        """Show it."""
        self._shown.end()

    def close(self) -> None:
        """Finish. Of several processes the first alone tracks, so it waits for no other, as `end_training` would."""
        for tracker in self._accelerator.trackers:
            tracker.finish()


@contextmanager
def watching(
    console: Console | None, trackers: Sequence[str], folder: Path, settings: Mapping[str, Any]
) -> Iterator[Watch]:
    """The watch of a run: the live display (none without a console), and the trackers, which are closed at the end."""
    shown = Watch() if console is None else Display(console)
    if not trackers:
        yield shown
        return
    with closing(Trackers(trackers, folder, settings, shown)) as tracked:
        yield tracked
