"""The columns of a comparison's tables, and the tables made of them.

A new column is one entry here. One that is measured, `measured(...)` in `TRAINING` or `USE`, says how it is read from a
run; its mean over seeds then goes into compare.json and the CSV, and it has a place in every form of the table. One
that only shows what a row of compare.json holds is an entry in `_quality_columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from softprune.report import formatting
from softprune.report.formatting import NOT_APPLICABLE, NOT_MEASURED
from softprune.runs.comparison_record import ComparisonDifference, ComparisonRecord
from softprune.runs.comparison_record import ComparisonRow as Row
from softprune.runs.record import TRAINING_PHASES
from softprune.statistics.seeds import MIN_SEEDS
from softprune.studies.findings import Table
from softprune.studies.run_result import FinishedRun

# A number of a run's result (`tuned`, `winner`, `adapted`, `control` or `random`); None where it wasn't measured.
Read: TypeAlias = Callable[[FinishedRun, str], float | None]

CONTROL: Final = "xprompt-control"  # the row of XPrompt's unpruned prompt, retrained as the tickets were
# The row of a random mask of the winner's size, drawn anew in each run and retrained as the tickets were.
RANDOM: Final = "xprompt-random"
LABELS: Final = {
    CONTROL: "xprompt, unpruned control",
    RANDOM: "xprompt, random mask of its size",
    "zero_shot": "zero-shot, nothing trained",
    "constant": "best constant answer",
}
# What rows of tasks whose targets are texts have beside their metric.
TEXT_METRICS: Final = ("loss", "rouge1", "rouge2", "rougeL")
# Results of an XPrompt run that aren't its winner's: the run's own costs aren't theirs.
_RIVALS: Final = ("control", "random")
_BATCH_SIZES: Final = ("1", "8", "32")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a comparison's table."""

    heading: str
    meaning: str  # for those who read the table the first time
    text: Callable[[Row], str]  # what it shows of a row
    short: str = ""  # the heading in a terminal, where room is short
    key: str = ""  # of what is measured, in compare.json
    read: Read | None = None  # of what is measured; its mean over seeds is stored
    unit: str = ""  # of what is measured, behind its key in the CSV where the key doesn't say it


def measured(
    key: str, heading: str, short: str, meaning: str, read: Read, write: Callable[[float], str], unit: str = ""
) -> Column:
    """A column of a number that is read from each run."""

    def text(row: Row) -> str:
        number = row.measured(key)
        return NOT_MEASURED if number is None else write(number)

    return Column(heading, meaning, text, short, key, read, unit)


def _run_cost(name: str) -> Read:
    return lambda run, result: None if result in _RIVALS else getattr(run.record.cost, name)


def _trainable(run: FinishedRun, result: str) -> float | None:
    return run.record.cost.trainable_parameters


def _stored(run: FinishedRun, result: str) -> float | None:
    if result not in _RIVALS:
        return run.record.cost.stored_parameters
    row = run.result(result)
    return None if row is None else row.parameters


def _training_seconds(run: FinishedRun, result: str) -> float | None:
    return run.record.training_seconds(result)


def _tokens_read(run: FinishedRun, result: str) -> float | None:
    return run.record.tokens_read(result)


def _peak_memory(run: FinishedRun, result: str) -> float | None:
    if result in _RIVALS:
        return None
    peaks = (run.record.cost.peak_memory.get(phase) for phase in TRAINING_PHASES)
    return max((peak for peak in peaks if peak), default=None)


def _rate(row: Row) -> str:
    if row.lr is None:
        return NOT_APPLICABLE
    rates = [f"{rate:.3g}" for rate in row.lr if rate is not None]
    return NOT_MEASURED if len(rates) < len(row.lr) else ", ".join(dict.fromkeys(rates))


def _swept(row: Row) -> str:
    if row.kind != "method":
        return NOT_APPLICABLE
    return "no" if row.multiples is None else ", ".join(dict.fromkeys(f"×{each}" for each in row.multiples))


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


# What training took.
TRAINING: Final = (
    Column("learning rate", "that counted, of each seed where they differ", _rate, "lr"),
    Column("swept", "multiples of the method's rate that were best on select; no: it alone was tried", _swept),
    measured("trainable", "trainable", "trained", "parameters that training changes", _trainable, _count),
    measured(
        "seconds_per_epoch", "s/epoch", "", "seconds of a pass over train", _run_cost("seconds_per_epoch"), _seconds
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

# What it takes to keep and use what was trained; latency follows, where any was measured.
USE: Final = (
    measured("stored", "stored", "", "parameters to keep beside the model's own", _stored, _count),
    measured(
        "tokens",
        "prompt tokens",
        "prompt\ntokens",
        "read before every input; of prefixes, positions that every layer attends to",
        _tokens_read,
        _count,
    ),
)


def measured_columns() -> list[tuple[Column, Read]]:
    """The columns of numbers that are read from runs, and how each is read."""
    return [(column, column.read) for column in (*TRAINING, *USE) if column.read is not None]


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


def build_sections(record: ComparisonRecord, narrow: bool = False) -> list[Section]:
    """The tables of a finished comparison. Floors, controls and random masks are in the first alone.

    In a terminal of 80 columns, which is `narrow`, what texts have beside their metric is a table of its own.
    """
    rows = record.rows
    quality, texts = _quality_columns(record), []
    for name in TEXT_METRICS:
        if name != record.metric and any(row.others.get(name) is not None for row in rows):
            texts.append(_text_column(name, over_seeds(record)))
    sections = [Section("What each method gives", [*quality, *texts], rows)]
    if narrow and texts:
        sections = [Section("What each method gives", quality, rows), Section("Loss and further ROUGE", texts, rows)]
    latency = [_latency_column(size) for size in _BATCH_SIZES if any(row.latency for row in rows)]
    methods = [row for row in rows if row.kind == "method"]
    sections += [Section("What training took", TRAINING, methods)]
    return [*sections, Section("What it takes to keep and use it", [*USE, *latency], methods)]


def label(row: Row) -> str:
    """A row's name for people."""
    # What is always given is an answer of the task, or, where texts are written, the first sentences of the input.
    is_copied = row.answer is not None and row.others.get("rougeL") is not None
    return formatting.printable(f"the text's own {row.answer}" if is_copied else LABELS.get(row.name, row.name))


def _quality_columns(record: ComparisonRecord) -> list[Column]:
    reference = record.reference
    unit, value, points = " (%)", formatting.percent, formatting.points
    if record.metric == "loss":  # a mean loss is no fraction; its sign is turned, so that higher is better
        unit, value, points = "", "{:.3f}".format, "{:+.3f}".format

    def interval(row: Row) -> str:
        return _absent(row) if row.interval is None else " to ".join(map(value, row.interval))

    def deviation(row: Row) -> str:
        return NOT_APPLICABLE if row.kind == "floor" or len(row.values) < 2 else value(row.sd)

    def against(text: Callable[[ComparisonDifference], str]) -> Callable[[Row], str]:
        def show(row: Row) -> str:
            if row.name == reference:
                return NOT_APPLICABLE
            return _absent(row) if row.difference is None else text(row.difference)

        return show

    covers = interval_covers(record)
    columns = [
        Column(f"{formatting.metric(record.metric)}{unit}", over_seeds(record), lambda row: value(row.mean)),
        Column("sd", "standard deviation over seeds", deviation),
        Column("95% interval", f"of the mean, {covers}", interval, "95% CI"),
        Column(
            f"minus {reference}",
            f"the mean minus that of {reference}, in points",
            against(lambda less: points(less.value)),
            f"minus\n{reference}",
        ),
        Column(
            "its 95% interval",
            f"of that difference, paired, {covers}",
            against(lambda less: f"{points(less.low)} to {points(less.high)}"),
            "its 95% CI",
        ),
    ]
    if covers_seeds(record):
        p_value = against(lambda less: formatting.p_value(less.p_holm))
        meaning = "of no difference, corrected for the number of differences in this table"
        columns.append(Column("p (Holm)", meaning, p_value, "p\n(Holm)"))
    return columns


def _text_column(name: str, over: str) -> Column:
    value, unit = formatting.percent, " (%)"
    if name == "loss":
        value, unit = "{:.3f}".format, ""

    def text(row: Row) -> str:
        return _absent(row) if row.others.get(name) is None else value(row.others[name])

    return Column(f"{formatting.metric(name)}{unit}", over, text)


def _latency_column(size: str) -> Column:
    """How many times as long answers take with what was trained."""

    def text(row: Row) -> str:
        seconds = (row.latency or {}).get(size)
        return NOT_MEASURED if seconds is None else f"{seconds['ratio']:.2f}"

    meaning = f"median time to answer {size} at once, over that of the model without what was trained"
    return Column(f"latency ×, batch {size}", meaning, text, f"latency ×\nbatch {size}")


def covers_seeds(record: ComparisonRecord) -> bool:
    """Whether the intervals of a comparison cover the sampling of seeds."""
    return any(row.covers_seeds for row in record.rows)


def interval_covers(record: ComparisonRecord) -> str:
    """What the intervals of a comparison cover."""
    if covers_seeds(record):
        return "over runs with other seeds and over other examples"
    return f"over other examples, for these very trained prompts: fewer than {MIN_SEEDS} seeds allow no verdict"


def over_seeds(record: ComparisonRecord) -> str:
    """What a row's numbers are of."""
    count = len(record.seeds)
    return "of 1 seed" if count == 1 else f"mean over {count} seeds"


def _absent(row: Row) -> str:
    """Where a row has no such number: a floor may have none (copied sentences have no loss), others miss it."""
    return NOT_APPLICABLE if row.kind == "floor" else NOT_MEASURED
