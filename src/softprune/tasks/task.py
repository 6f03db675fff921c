"""A task: its definition, and its examples wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.registry import unknown
from softprune.tasks.metrics import Metric, metric_named
from softprune.tasks.schema import Definition, Split, read_definition
from softprune.tasks.sources import find_layout, generate, read_hub, read_layout
from softprune.types import Example

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
    """

    train: tuple[Example, ...] | None
    dev: tuple[Example, ...] | None
    validation: tuple[Example, ...] | None
    source: str
    layout: str
    verified: bool
    notes: tuple[str, ...] = ()

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
    def metric(self) -> Metric:
        """Its metric, which knows the positive answer."""
        positive = self.definition.positive
        place = None if positive is None else self.definition.answers.index(positive)
        return metric_named(self.definition.metric, place)

    @property
    def n_answers(self) -> int:
        """A, the number of candidate answers."""
        return len(self.definition.answers)

    def load(self, data: Path | None = None) -> Splits:
        """Load every split.

        Args:
            data: a folder in the official or the hub's layout. None: own files beside the YAML, the
                generator, or the hub by name.

        Raises:
            SoftpruneError: for whatever is missing or malformed, with file and line.
        """
        sources = self.definition.sources
        if data is None and sources.file is not None:
            data = self.folder
        if data is not None and sources.generated is None:
            layout = find_layout(self.definition, data)
            splits = read_layout(self.definition, layout)
            return _splits(splits, str(data), layout.name, layout.source.verified)
        if sources.generated is not None:
            made = generate(self.definition, sources.generated)
            return _splits(made, sources.generated.generator, "generated", verified=True)
        if sources.hub is None:
            raise SoftpruneError(
                f"a folder with the data of {self.id}",
                "no folder",
                "pass --data FOLDER with its official files",
            )
        hub = sources.hub
        name = "/".join(filter(None, (hub.repository, hub.config)))
        return _splits(read_hub(self.definition, hub), name, "hub", hub.verified)


def task_names() -> tuple[str, ...]:
    """The tasks that ship, by name."""
    return tuple(sorted(path.stem for path in DEFINITIONS.glob("*.yaml")))


def load_task(id_or_path: str | Path) -> Task:
    """A task by its name, or by the path of your own task YAML.

    Raises:
        SoftpruneError: for an unknown name (with the nearest known one) or a missing file.
        ManyErrors: with every mistake in a YAML.
    """
    name = str(id_or_path)
    if isinstance(id_or_path, Path) or name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(id_or_path)
        return Task(read_definition(path), path.resolve().parent)
    if name not in task_names():
        raise unknown("task", name, task_names())
    return Task(read_definition(DEFINITIONS / f"{name}.yaml"), DEFINITIONS)


def _splits(splits: dict[Split, tuple[Example, ...]], source: str, layout: str, verified: bool) -> Splits:
    notes = []
    if "validation" not in splits and "dev" in splits:
        notes.append(
            f"no validation set in {source}: results are reported on the small development set of "
            f"{len(splits['dev'])} examples"
        )
    if not verified:
        notes.append(f"the {layout} layout was not checked against the real data")
    return Splits(
        train=splits.get("train"),
        dev=splits.get("dev"),
        validation=splits.get("validation"),
        source=source,
        layout=layout,
        verified=verified,
        notes=tuple(notes),
    )
