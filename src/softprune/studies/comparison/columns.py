"""The columns of a comparison's tables, and the tables made of them.

A new column is one entry here. One that is measured, `measured(...)` in `TRAINING` or `USE`, says how it is read from a
run; its mean over seeds then goes into compare.json and the CSV, and it has a place in every form of the table. One
that only shows what a row of compare.json holds is an entry in `quality_columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from softprune.report import formatting
from softprune.report.formatting import NOT_APPLICABLE, NOT_MEASURED
from softprune.statistics.seeds import MIN_SEEDS
from softprune.studies.findings import Table
from softprune.studies.run_result import FinishedRun
from softprune.training.jobs import work_of

Row: TypeAlias = Mapping[str, Any]
"""A row of compare.json."""
Read: TypeAlias = Callable[[FinishedRun, str], float | None]
"""A number of a run's result (`tuned`, `winner`, `adapted`, `control` or `random`); None where it wasn't measured."""

CONTROL: Final = "xprompt-control"
"""The row of XPrompt's unpruned prompt, retrained as the tickets were."""
RANDOM: Final = "xprompt-random"
"""The row of a random mask of the winner's size, drawn anew in each run and retrained as the tickets were."""
LABELS: Final = {
    CONTROL: "xprompt, unpruned control",
    RANDOM: "xprompt, random mask of its size",
    "zero_shot": "zero-shot, nothing trained",
    "constant": "best constant answer",
}
TEXT_METRICS: Final = ("loss", "rouge1", "rouge2", "rougeL")
"""What rows of tasks whose targets are texts have beside their metric."""
_TRAINING_PHASES: Final = ("sweep", "tune", "adapt", "importance", "gates", "rank", "retrain")
"""Phases that make what is used in the end; the rest compares, writes and reports."""
_RIVALS: Final = ("control", "random")
"""Results of an XPrompt run that aren't its winner's: the run's own costs aren't theirs."""
_BATCH_SIZES: Final = ("1", "8", "32")
_HOLM: Final = "of no difference, corrected for the number of differences in this table"


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        heading: over it.
        meaning: for those who read the table the first time.
        text: what it shows of a row.
        short: the heading in a terminal, where room is short.
        key: of what is measured, in compare.json.
        read: of what is measured; its mean over seeds is stored.
        unit: of what is measured, behind its key in the CSV where the key doesn't say it.
    """

    heading: str
    meaning: str
    text: Callable[[Row], str]
    short: str = ""
    key: str = ""
    read: Read | None = None
    unit: str = ""


def measured(
    key: str, heading: str, short: str, meaning: str, read: Read, write: Callable[[float], str], unit: str = ""
) -> Column:
    """A column of a number that is read from each run."""

    def text(row: Row) -> str:
        return NOT_MEASURED if row.get(key) is None else write(row[key])

    return Column(heading, meaning, text, short, key, read, unit)


def _run_cost(name: str) -> Read:
    """A cost of a whole run."""
    return lambda run, result: None if result in _RIVALS else run.cost.get(name)


def _stored(run: FinishedRun, result: str) -> float | None:
    stored: float | None = run.cost.get("stored_parameters")
    if result in _RIVALS:
        stored = (run.result(result) or {}).get("parameters")
    return stored


def _training_seconds(run: FinishedRun, result: str) -> float | None:
    """Of everything that makes the result; a rival's are the tuned prompt's and its own retraining."""
    phases = run.cost.get("phases") or {}
    if result not in _RIVALS:
        return sum(phases[phase] for phase in _TRAINING_PHASES if phase in phases) or None
    seconds: float | None = (run.result(result) or {}).get("seconds")
    if seconds is None:
        return None
    # The rate that the sweep chose is in the tuned prompt's seconds already; the others have pieces of their own.
    pieces, sweep = run.cost.get("training") or {}, run.info.get("sweep") or {}
    others = [work_of(float(name)) for name, row in sweep.items() if not row.get("chosen")]
    swept: float = sum(pieces[work]["seconds"] for work in others if work in pieces)
    return seconds + swept


def _peak_memory(run: FinishedRun, result: str) -> float | None:
    peaks = run.cost.get("peak_memory") or {}
    own = [peaks[phase] for phase in _TRAINING_PHASES if peaks.get(phase)]
    return None if result in _RIVALS else max(own, default=None)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _rate(row: Row) -> str:
    if row["lr"] is None:
        return NOT_APPLICABLE
    if any(rate is None for rate in row["lr"]):
        return NOT_MEASURED
    return ", ".join(dict.fromkeys(f"{rate:.3g}" for rate in row["lr"]))


def _swept(row: Row) -> str:
    if row["kind"] != "method":
        return NOT_APPLICABLE
    return "no" if row["multiples"] is None else ", ".join(dict.fromkeys(f"×{each}" for each in row["multiples"]))


TRAINING: Final = (
    Column("learning rate", "that counted, of each seed where they differ", _rate, "lr"),
    Column("swept", "multiples of the method's rate that were best on select; no: it alone was tried", _swept),
    measured(
        "trainable",
        "trainable",
        "trained",
        "parameters that training changes",
        lambda run, _: run.cost.get("trainable_parameters"),
        _count,
    ),
    measured(
        "seconds_per_epoch",
        "s/epoch",
        "s/epoch",
        "seconds of a pass over train",
        _run_cost("seconds_per_epoch"),
        _seconds,
    ),
    measured(
        "seconds",
        "training (s)",
        "train (s)",
        "seconds of all that makes what is used: learning rates tried, search, retraining",
        _training_seconds,
        _seconds,
    ),
    measured(
        "examples_per_second",
        "examples/s",
        "ex./s",
        "training examples a second, counted for every prompt that trains side by side",
        _run_cost("examples_per_second"),
        _count,
    ),
    measured(
        "peak_memory",
        "peak memory",
        "peak",
        "while training: of the whole process on a CPU, of torch's allocator on a GPU",
        _peak_memory,
        formatting.storage,
        unit="bytes",
    ),
)
"""What training took."""

USE: Final = (measured("stored", "stored", "stored", "parameters to keep beside the model's own", _stored, _count),)
"""What it takes to keep and use what was trained; latency follows, where any was measured."""

MEASURED: Final = tuple(column for column in (*TRAINING, *USE) if column.read is not None)


@dataclass(frozen=True, slots=True)
class Section:
    """A table of a comparison: its heading, its columns but the first, and its rows."""

    heading: str
    columns: Sequence[Column]
    rows: Sequence[Row]

    @property
    def table(self) -> Table:
        """The table, its rows named."""
        rows = [(label(row), *(column.text(row) for column in self.columns)) for row in self.rows]
        return Table(self.heading, self.heading, ("method", *(column.heading for column in self.columns)), rows)


def build_sections(found: Mapping[str, Any], narrow: bool = False) -> list[Section]:
    """The tables of a compare.json. Floors, controls and random masks stand in the first alone.

    Args:
        found: compare.json.
        narrow: for a terminal of 80 columns, where what texts have beside their metric is a table of its own.
    """
    rows = list(found["rows"])
    methods = [row for row in rows if row["kind"] == "method"]
    quality, texts = quality_columns(found), text_columns(found)
    heading = "What each method gives"
    if narrow:
        sections = [Section(heading, quality, rows)]
        sections += [Section("Loss and further ROUGE", texts, rows)] if texts else []
    else:
        sections = [Section(heading, [*quality, *texts], rows)]
    use = [*USE, *(latency_columns() if any(row["latency"] for row in rows) else ())]
    return [
        *sections,
        Section("What training took", TRAINING, methods),
        Section("What it takes to keep and use it", use, methods),
    ]


def label(row: Row) -> str:
    """A row's name for people."""
    name, answer = str(row["name"]), row["answer"]
    # What is always given is an answer of the task, or, where texts are written, the first sentences of the input.
    is_copied = answer is not None and row["others"].get("rougeL") is not None
    return formatting.printable(f"the text's own {answer}" if is_copied else LABELS.get(name, name))


def quality_columns(found: Mapping[str, Any]) -> list[Column]:
    """The columns that say what each method gives, in the metric; `found` is compare.json."""
    metric, reference = str(found["metric"]), str(found["reference"])
    # A mean loss is no fraction; it is a metric whose sign is turned, so that higher is better.
    unit, value, points = ("", _plain, _signed) if metric == "loss" else (" (%)", formatting.percent, formatting.points)

    def interval(row: Row) -> str:
        return _absent(row) if row["interval"] is None else " to ".join(map(value, row["interval"]))

    def deviation(row: Row) -> str:
        return NOT_APPLICABLE if row["kind"] == "floor" or len(row["values"]) < 2 else value(row["sd"])

    def against(text: Callable[[Mapping[str, Any]], str]) -> Callable[[Row], str]:
        def show(row: Row) -> str:
            if row["name"] == reference:
                return NOT_APPLICABLE
            return _absent(row) if row["difference"] is None else text(row["difference"])

        return show

    heading, over = f"{formatting.metric(metric)}{unit}", over_seeds(found)
    columns = [
        Column(heading, over, lambda row: value(row["mean"])),
        Column("sd", "standard deviation over seeds", deviation),
        Column("95% interval", f"of the mean, {interval_covers(found)}", interval, "95% CI"),
        Column(
            f"minus {reference}",
            f"the mean minus that of {reference}, in points",
            against(lambda less: points(less["value"])),
            f"minus\n{reference}",
        ),
        Column(
            "its 95% interval",
            f"of that difference, paired, {interval_covers(found)}",
            against(lambda less: f"{points(less['low'])} to {points(less['high'])}"),
            "its 95% CI",
        ),
    ]
    if covers_seeds(found):
        p_value = against(lambda less: formatting.p_value(less.get("p_holm")))
        columns.append(Column("p (Holm)", _HOLM, p_value, "p\n(Holm)"))
    return columns


def text_columns(found: Mapping[str, Any]) -> list[Column]:
    """What tasks whose targets are texts have beside their metric."""
    columns = []
    for name in TEXT_METRICS:
        if name != found["metric"] and any(row["others"].get(name) is not None for row in found["rows"]):
            columns.append(_text_column(name, over_seeds(found)))
    return columns


def _text_column(name: str, over: str) -> Column:
    value, unit = (_plain, "") if name == "loss" else (formatting.percent, " (%)")

    def text(row: Row) -> str:
        return _absent(row) if row["others"].get(name) is None else value(row["others"][name])

    return Column(f"{formatting.metric(name)}{unit}", over, text)


def latency_columns() -> list[Column]:
    """How many times as long answers take with what was trained."""
    return [_latency_column(size) for size in _BATCH_SIZES]


def _latency_column(size: str) -> Column:
    def text(row: Row) -> str:
        seconds = (row["latency"] or {}).get(size)
        return NOT_MEASURED if seconds is None else f"{seconds['ratio']:.2f}"

    meaning = f"median time to answer {size} at once, over that of the model without what was trained"
    return Column(f"latency ×, batch {size}", meaning, text, f"latency ×\nbatch {size}")


def covers_seeds(found: Mapping[str, Any]) -> bool:
    """Whether the intervals of a comparison cover the sampling of seeds."""
    return any(row.get("covers_seeds") for row in found["rows"])


def interval_covers(found: Mapping[str, Any]) -> str:
    """What the intervals of a comparison cover."""
    if covers_seeds(found):
        return "over runs with other seeds and over other examples"
    return f"over other examples, for these very trained prompts: fewer than {MIN_SEEDS} seeds allow no verdict"


def over_seeds(found: Mapping[str, Any]) -> str:
    """What a row's numbers are of."""
    count = len(found["seeds"])
    return "of 1 seed" if count == 1 else f"mean over {count} seeds"


def _absent(row: Row) -> str:
    """Where a row has no such number: a floor may have none (copied sentences have no loss), others miss it."""
    return NOT_APPLICABLE if row["kind"] == "floor" else NOT_MEASURED


def _plain(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:+.3f}"
