"""A task: its definition, and its examples wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from softprune.config.registry import unknown
from softprune.data.definition import Definition, FileSource, Source, Split, join_definitions
from softprune.data.definition_loading import read_definition
from softprune.data.demo import GENERATORS
from softprune.data.metrics import Loss, Metric, metric_named
from softprune.data.row_files import Located, read_rows
from softprune.data.sources import SPLITS, SplitRows, find_layout, fits_layout, hub_rows
from softprune.data.splits import Examples, Splits, divide
from softprune.data.template import MissingColumn, examples_from
from softprune.errors import SoftpruneError

HELD_OUT_SEED = 20221008
"""Of the validation set that is drawn from train: the same examples in every run, whatever the run's seed."""
DEFINITIONS = Path(__file__).parent / "definitions"
SAMPLES = Path(__file__).parent / "samples"
"""A few rows of each task, written for softprune: what a task looks like where its data can't be reached."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task that examples can be loaded for, or several tasks that share a prompt."""

    definition: Definition  # what its YAML states
    folder: Path  # where that YAML is; own files are relative to it
    parts: tuple[Task, ...] = ()  # the tasks, each with its own data, where several are joined

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
        return metric_named(definition.metric, positive, self.n_answers, definition.extract)

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
            patient: wait for a hub that doesn't answer as long as its client does; see `hub_rows`.

        Raises:
            SoftpruneError: for whatever is missing or malformed, with file and line.
        """
        folder = None if data is None else Path(data)
        if self.parts:
            return self._load_parts(folder, patient)
        try:
            return self._load_own(folder, patient)
        except MissingColumn as error:
            if not self.ships:  # its owner can edit the YAML
                do = f"{error.do}, or map it under the source's `columns` in the task YAML"
                raise SoftpruneError(error.expected, error.found, do) from None
            if folder is None or fits_layout(self.definition, find_layout(self.definition, folder)):
                raise
            expected = f"the data of {self.id} ({error.expected})"
            found = f"{folder} doesn't seem to hold them: {error.found}"
            do = f"pass --data with the folder of {self.id}, or name the task that these files are of (--task)"
            raise SoftpruneError(expected, found, do) from None

    def _load_parts(self, data: Path | None, patient: bool) -> Splits:
        """The sets that each task has alone, side by side; a set is there only where every task has it."""
        parts, notes = [], []
        for task in self.parts:
            sources = task.definition.sources
            brings_its_own = sources.file is not None or sources.generated is not None
            splits = task.load(None if brings_its_own else data, patient=patient)
            train, dev, validation = (_mark_task(getattr(splits, split), task.id) for split in SPLITS)
            parts.append(replace(splits, train=train, dev=dev, validation=validation))
            notes += [f"{task.id}: {note}" for note in splits.notes]
        sets: dict[str, Examples | None] = {}
        for split in SPLITS:
            held = [getattr(part, split) for part in parts]
            sets[split] = None if None in held else tuple(chain.from_iterable(held))
        return Splits(
            **sets,
            source=", ".join(dict.fromkeys(part.source for part in parts)),
            layout=", ".join(dict.fromkeys(part.layout for part in parts)),
            verified=all(part.verified for part in parts),
            notes=tuple(dict.fromkeys(notes)),
            parts=tuple(parts),
        )

    def _load_own(self, data: Path | None, patient: bool) -> Splits:
        """The splits of a single task: generated, in a folder, or on the hub."""
        sources = self.definition.sources
        if sources.generated is not None:
            if data is not None:
                do = "leave --data out, or name the task that these files are of (--task)"
                raise SoftpruneError(f"no data for {self.id}, which is generated", f"--data {data}", do)
            name = sources.generated.generator
            made = {split: [Located(row, name) for row in rows] for split, rows in GENERATORS[name]().items()}
            return self._read(sources.generated, made, name, "generated")
        if data is None and sources.file is not None:
            data = self.folder  # own files lie beside the YAML
        if data is not None:
            layout = find_layout(self.definition, data)
            in_folder = {split: layout.rows(split) for split in layout.paths}
            return self._read(layout.source, in_folder, str(data), layout.name)
        hub = sources.hub
        if hub is None:
            do = "pass --data FOLDER with its official files"
            raise SoftpruneError(f"a folder with the data of {self.id}", "no folder", do)
        names = ["/".join(filter(None, (place.repository, place.config))) for place in (hub, *hub.elsewhere.values())]
        return self._read(hub, hub_rows(hub, patient=patient), ", ".join(names), "hub")

    def _read(self, source: Source, rows: SplitRows, where: str, layout: str) -> Splits:
        """Rows as examples, with the validation set drawn from train where `held_out` asks for it."""
        examples: dict[Split, Examples] = {}
        for split, located in rows.items():
            examples[split] = tuple(examples_from(self.definition, source, located))
        notes = []
        if "validation" not in examples and "dev" in examples:
            notes.append(
                f"no validation set in {where}: results are reported on the small development set of "
                f"{len(examples['dev'])} examples"
            )
        if not source.verified:
            notes.append(f"the {layout} layout was not checked against the real data")
        if isinstance(source, FileSource) and source.held_out is not None:
            whole, do = examples.get("train", ()), "add examples, or name a validation file"
            generator = np.random.default_rng(HELD_OUT_SEED)
            examples["train"], examples["validation"] = divide(whole, source.held_out, generator, do)
            # A text to be written has no label to stratify by.
            how = "at random" if whole[0].is_generation else "by label"
            notes.append(
                f"validation is {len(examples['validation'])} of the {len(whole)} training examples (held_out: "
                f"{source.held_out}), drawn {how} with the fixed seed {HELD_OUT_SEED}; they are not trained on"
            )
        train, dev, validation = map(examples.get, SPLITS)
        return Splits(train, dev, validation, where, layout, source.verified, tuple(notes))


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
    if isinstance(id_or_path, str) and "+" in name and not Path(name).exists():  # a path may hold a "+"
        parts = tuple(load_task(part) for part in name.split("+"))
        return Task(join_definitions([part.definition for part in parts]), Path(), parts)
    if isinstance(id_or_path, Path) or name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(id_or_path)
        return Task(read_definition(path), path.resolve().parent)
    if name not in task_names():
        raise unknown("task", name, task_names())
    return Task(read_definition(DEFINITIONS / f"{name}.yaml"), DEFINITIONS)


def load_sample(task: Task) -> Examples:
    """The sample of a task that ships, as examples; none for your own tasks and for generated ones."""
    path, source = SAMPLES / f"{task.id}.jsonl", task.definition.sources.official
    if source is None or not path.exists() or not task.ships:
        return ()
    # Samples have the rows of the official files, whatever the format of those.
    return tuple(examples_from(task.definition, source, read_rows(path, "jsonl")))


def _mark_task(examples: Examples | None, task: str) -> Examples | None:
    """Examples that say which task they are of, also in their ids and groups."""
    if examples is None:
        return None
    marked = []
    for example in examples:
        group = None if example.group is None else f"{task}:{example.group}"
        marked.append(replace(example, id=f"{task}:{example.id}", group=group, task=task))
    return tuple(marked)
