"""A task: its definition, and its examples wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from softprune.config.registry import unknown
from softprune.data.definition import Definition, FileSource, Source, Split
from softprune.data.definition_loading import read_definition
from softprune.data.hub import read_hub
from softprune.data.metrics import Loss, Metric, metric_named
from softprune.data.sampling import divided
from softprune.data.sources import find_layout, fits, generate, read_layout
from softprune.data.template import MissingColumn
from softprune.errors import SoftpruneError
from softprune.types import Example

HELD_OUT_SEED = 20221008
"""Of the validation set that is drawn from train: the same examples in every run, whatever the run's seed."""
DEFINITIONS = Path(__file__).parent / "definitions"


@dataclass(frozen=True, slots=True)
class Splits:
    """What a task's data holds.

    Attributes:
        train: the training examples.
        dev: a small development set beside the validation set (FewGLUE's dev32).
        validation: what is reported; the test set where a benchmark publishes its labels.
        source: folder or hub name.
        layout: official, hub, file or generated.
        verified: whether this layout was checked against the real data.
        notes: what a reader of the results must know.
        parts: what these are joined of, where a prompt serves several tasks.
    """

    train: tuple[Example, ...] | None
    dev: tuple[Example, ...] | None
    validation: tuple[Example, ...] | None
    source: str
    layout: str
    verified: bool
    notes: tuple[str, ...] = ()
    parts: tuple[Splits, ...] = ()

    @property
    def reported(self) -> Split:
        """The split that results are reported on: validation, or dev where that is absent."""
        return "validation" if self.validation is not None else "dev"

    @property
    def report(self) -> tuple[Example, ...] | None:
        """The examples that results are reported on."""
        return self.validation if self.validation is not None else self.dev


@dataclass(frozen=True, slots=True)
class Task:
    """A task that examples can be loaded for.

    Attributes:
        definition: what its YAML states.
        folder: where that YAML stands; own files are relative to it.
    """

    definition: Definition
    folder: Path

    @property
    def id(self) -> str:
        """Its name."""
        return self.definition.id

    @property
    def version(self) -> int:
        """Its version."""
        return self.definition.version

    @property
    def ships(self) -> bool:
        """Whether it comes with softprune."""
        return self.folder == DEFINITIONS

    @property
    def metric(self) -> Metric:
        """Its metric, which knows the positive answer."""
        positive = self.definition.positive
        place = None if positive is None else self.definition.answers.index(positive)
        return metric_named(self.definition.metric, place)

    @property
    def choice(self) -> Metric:
        """What every choice on `select` goes by: its metric, or minus the loss where a text is written."""
        return Loss() if self.definition.writes else self.metric

    @property
    def n_answers(self) -> int:
        """A, the number of candidate answers."""
        return len(self.definition.answers)

    def load(self, data: str | Path | None = None, *, patient: bool = True) -> Splits:
        """Load every split.

        Args:
            data: a folder in the official or the hub's layout. None: own files beside the YAML, the
                generator, or the hub by name.
            patient: wait for a hub that doesn't answer as long as its client does, half a minute or more.

        Raises:
            SoftpruneError: for whatever is missing or malformed, with file and line.
        """
        folder = None if data is None else Path(data)
        try:
            return self._load(folder, patient)
        except MissingColumn as error:
            raise self._without_column(error, folder) from None

    def _load(self, data: Path | None, patient: bool) -> Splits:
        sources = self.definition.sources
        if sources.generated is not None:
            if data is not None:
                do = "leave --data out, or name the task that these files are of (--task)"
                raise SoftpruneError(f"no data for {self.id}, which is generated", f"--data {data}", do)
            made = generate(self.definition, sources.generated)
            return _splits(made, sources.generated.generator, "generated", sources.generated)
        if data is None and sources.file is not None:
            data = self.folder
        if data is not None:
            layout = find_layout(self.definition, data)
            return _splits(read_layout(self.definition, layout), str(data), layout.name, layout.source)
        hub = sources.hub
        if hub is None:
            raise SoftpruneError(
                f"a folder with the data of {self.id}",
                "no folder",
                "pass --data FOLDER with its official files",
            )
        name = "/".join(filter(None, (hub.repository, hub.config)))
        return _splits(read_hub(self.definition, hub, patient=patient), name, "hub", hub)

    def _without_column(self, error: MissingColumn, data: Path | None) -> SoftpruneError:
        """What to do about rows without a column: one's own task can be edited, and one that ships can't."""
        if not self.ships:
            do = f"{error.do}, or map it under the source's `columns` in the task YAML"
            return SoftpruneError(error.expected, error.found, do)
        if data is None or fits(self.definition, find_layout(self.definition, data)):
            return error
        found = f"{data} doesn't seem to hold them: {error.found}"
        do = f"pass --data with the folder of {self.id}, or name the task that these files are of (--task)"
        return SoftpruneError(f"the data of {self.id} ({error.expected})", found, do)


def task_names() -> tuple[str, ...]:
    """The tasks that ship, by name."""
    return tuple(sorted(path.stem for path in DEFINITIONS.glob("*.yaml")))


def load_task(id_or_path: str | Path) -> Task:
    """A task by its name, or by the path of your own task YAML; several, joined by "+", are one task for one prompt.

    Raises:
        SoftpruneError: for an unknown name (with the nearest known one), a missing file, or tasks that can't be joined.
        ManyErrors: with every mistake in a YAML.
    """
    name = str(id_or_path)
    if isinstance(id_or_path, str) and "+" in name and not Path(name).exists():
        from softprune.data.multitask import join  # which builds on this file

        return join([load_task(part) for part in name.split("+")])
    if isinstance(id_or_path, Path) or name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(id_or_path)
        return Task(read_definition(path), path.resolve().parent)
    if name not in task_names():
        raise unknown("task", name, task_names())
    return Task(read_definition(DEFINITIONS / f"{name}.yaml"), DEFINITIONS)


def _splits(splits: dict[Split, tuple[Example, ...]], where: str, layout: str, source: Source) -> Splits:
    notes = []
    if "validation" not in splits and "dev" in splits:
        notes.append(
            f"no validation set in {where}: results are reported on the small development set of "
            f"{len(splits['dev'])} examples"
        )
    if not source.verified:
        notes.append(f"the {layout} layout was not checked against the real data")
    found = Splits(
        train=splits.get("train"),
        dev=splits.get("dev"),
        validation=splits.get("validation"),
        source=where,
        layout=layout,
        verified=source.verified,
        notes=tuple(notes),
    )
    fraction = source.held_out if isinstance(source, FileSource) else None
    return found if fraction is None else _holding_out(found, fraction)


def _holding_out(splits: Splits, fraction: float) -> Splits:
    """The validation set drawn from train, as `held_out` asks."""
    whole = splits.train or ()
    do = "add examples, or name a validation file"
    train, validation = divided(whole, fraction, np.random.default_rng(HELD_OUT_SEED), do)
    note = (
        f"validation is {len(validation)} of the {len(whole)} training examples (held_out: {fraction}), drawn "
        f"{'at random' if whole[0].writes else 'by label'} with the fixed seed {HELD_OUT_SEED}; they are not trained on"
    )
    return replace(splits, train=train, validation=validation, notes=(*splits.notes, note))
