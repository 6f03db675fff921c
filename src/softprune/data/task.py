"""A task: its definition, and its examples wherever they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from softprune.config.registry import unknown
from softprune.data.definition import Definition, FileSource, Source, Split
from softprune.data.definition_loading import read_definition
from softprune.data.hub import hub_rows
from softprune.data.metrics import Loss, Metric, metric_named
from softprune.data.multitask import join_definitions
from softprune.data.sampling import divide
from softprune.data.sources import SplitRows, find_layout, fits_layout, generated_rows, read_examples
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
    """A task that examples can be loaded for, or several tasks that share a prompt.

    Attributes:
        definition: what its YAML states.
        folder: where that YAML is; own files are relative to it.
        parts: the tasks, each with its own data, where several are joined.
    """

    definition: Definition
    folder: Path
    parts: tuple[Task, ...] = ()

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
        definition = self.definition
        positive = None if definition.positive is None else definition.answers.index(definition.positive)
        return metric_named(definition.metric, positive, self.n_answers)

    @property
    def choice(self) -> Metric:
        """What every choice on `select` goes by: its metric, or minus the loss where a text is written."""
        return Loss() if self.definition.is_generation else self.metric

    @property
    def n_answers(self) -> int:
        """A, the number of candidate answers."""
        return len(self.definition.answers)

    def load(self, data: str | Path | None = None, *, patient: bool = True) -> Splits:
        """Load every split.

        Args:
            data: a folder in the official or the hub's layout; of joined tasks, with the data of all that don't bring
                their own. None: own files beside the YAML, the generator, or the hub by name.
            patient: wait for a hub that doesn't answer as long as its client does, half a minute or more.

        Raises:
            SoftpruneError: for whatever is missing or malformed, with file and line.
        """
        folder = None if data is None else Path(data)
        if self.parts:
            return self._load_parts(folder, patient)
        try:
            return self._load(folder, patient)
        except MissingColumn as error:
            raise self._explain_missing(error, folder) from None

    def _load_parts(self, data: Path | None, patient: bool) -> Splits:
        """The sets that each task has alone, side by side; a set is there only where every task has it."""
        parts, notes = [], []
        for task in self.parts:
            splits = task.load(None if task.definition.sources.brings_its_own else data, patient=patient)
            notes += [f"{task.id}: {note}" for note in splits.notes]
            parts.append(_name_task(splits, task.id))
        return Splits(
            train=_concatenate([part.train for part in parts]),
            dev=_concatenate([part.dev for part in parts]),
            validation=_concatenate([part.validation for part in parts]),
            source=", ".join(dict.fromkeys(part.source for part in parts)),
            layout=", ".join(dict.fromkeys(part.layout for part in parts)),
            verified=all(part.verified for part in parts),
            notes=tuple(dict.fromkeys(notes)),
            parts=tuple(parts),
        )

    def _load(self, data: Path | None, patient: bool) -> Splits:
        sources = self.definition.sources
        if sources.generated is not None:
            if data is not None:
                do = "leave --data out, or name the task that these files are of (--task)"
                raise SoftpruneError(f"no data for {self.id}, which is generated", f"--data {data}", do)
            rows = generated_rows(sources.generated)
            return self._read(sources.generated, rows, sources.generated.generator, "generated")
        if data is None and sources.file is not None:
            data = self.folder
        if data is not None:
            layout = find_layout(self.definition, data)
            return self._read(layout.source, layout.split_rows(), str(data), layout.name)
        hub = sources.hub
        if hub is None:
            do = "pass --data FOLDER with its official files"
            raise SoftpruneError(f"a folder with the data of {self.id}", "no folder", do)
        name = "/".join(filter(None, (hub.repository, hub.config)))
        return self._read(hub, hub_rows(hub, patient=patient), name, "hub")

    def _read(self, source: Source, rows: SplitRows, where: str, layout: str) -> Splits:
        examples = read_examples(self.definition, source, rows)
        notes = []
        if "validation" not in examples and "dev" in examples:
            notes.append(
                f"no validation set in {where}: results are reported on the small development set of "
                f"{len(examples['dev'])} examples"
            )
        if not source.verified:
            notes.append(f"the {layout} layout was not checked against the real data")
        splits = Splits(
            train=examples.get("train"),
            dev=examples.get("dev"),
            validation=examples.get("validation"),
            source=where,
            layout=layout,
            verified=source.verified,
            notes=tuple(notes),
        )
        if isinstance(source, FileSource) and source.held_out is not None:
            return _hold_out(splits, source.held_out)
        return splits

    def _explain_missing(self, error: MissingColumn, data: Path | None) -> SoftpruneError:
        """What to do about rows without a column: one's own task can be edited, and one that ships can't."""
        if not self.ships:
            do = f"{error.do}, or map it under the source's `columns` in the task YAML"
            return SoftpruneError(error.expected, error.found, do)
        if data is None or fits_layout(self.definition, find_layout(self.definition, data)):
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
        parts = tuple(load_task(part) for part in name.split("+"))
        return Task(join_definitions([part.definition for part in parts]), Path(), parts)
    if isinstance(id_or_path, Path) or name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(id_or_path)
        return Task(read_definition(path), path.resolve().parent)
    if name not in task_names():
        raise unknown("task", name, task_names())
    return Task(read_definition(DEFINITIONS / f"{name}.yaml"), DEFINITIONS)


def _hold_out(splits: Splits, fraction: float) -> Splits:
    """The validation set drawn from train, as `held_out` asks."""
    whole = splits.train or ()
    do = "add examples, or name a validation file"
    train, validation = divide(whole, fraction, np.random.default_rng(HELD_OUT_SEED), do)
    how = "at random" if whole[0].is_generation else "by label"
    note = (
        f"validation is {len(validation)} of the {len(whole)} training examples (held_out: {fraction}), drawn "
        f"{how} with the fixed seed {HELD_OUT_SEED}; they are not trained on"
    )
    return replace(splits, train=train, validation=validation, notes=(*splits.notes, note))


def _name_task(splits: Splits, task: str) -> Splits:
    """The same, where every example says which task it is of, also in its id and its group."""

    def rename(examples: tuple[Example, ...] | None) -> tuple[Example, ...] | None:
        if examples is None:
            return None
        renamed = []
        for example in examples:
            group = None if example.group is None else f"{task}:{example.group}"
            renamed.append(replace(example, id=f"{task}:{example.id}", group=group, task=task))
        return tuple(renamed)

    return replace(splits, train=rename(splits.train), dev=rename(splits.dev), validation=rename(splits.validation))


def _concatenate(parts: Sequence[tuple[Example, ...] | None]) -> tuple[Example, ...] | None:
    """The examples of all; None where a task has none."""
    examples: list[Example] = []
    for part in parts:
        if part is None:
            return None
        examples += part
    return tuple(examples)
