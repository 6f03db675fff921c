"""What the tables of a comparison show, as text: one list of columns for the terminal, Markdown, LaTeX and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from softprune.report import formatting
from softprune.report.formatting import NOT_APPLICABLE, NOT_MEASURED
from softprune.statistics.seeds import MIN_SEEDS

Row: TypeAlias = Mapping[str, Any]
"""A row of compare.json."""

LABELS: Final = {
    "xprompt-control": "xprompt, unpruned control",
    "zero_shot": "zero-shot, nothing trained",
    "constant": "best constant answer",
}
SIZES: Final = ("1", "8", "32")
HOLM: Final = "of no difference, corrected for the number of differences in this table"


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        heading: over it.
        short: the same in a terminal, where room is short.
        text: what it shows of a row.
        meaning: for those who read the table the first time.
    """

    heading: str
    short: str
    text: Callable[[Row], str]
    meaning: str


def label(row: Row) -> str:
    """A row's name for people."""
    name, answer = str(row["name"]), row["answer"]
    # What is always given is an answer of the task, or, where texts are written, the first sentences of the input.
    copied = answer is not None and row["others"].get("rougeL") is not None
    return formatting.printable(f"the text's own {answer}" if copied else LABELS.get(name, name))


def quality(found: Mapping[str, Any]) -> list[Column]:
    """The columns that say what each method gives, in the metric; `found` is compare.json."""
    metric, reference = str(found["metric"]), str(found["reference"])
    # A mean loss is no fraction; it is a metric whose sign is turned, so that higher is better.
    unit, value, points = ("", _plain, _signed) if metric == "loss" else (" (%)", formatting.percent, formatting.points)

    def interval(row: Row) -> str:
        return _absent(row) if row["interval"] is None else " to ".join(map(value, row["interval"]))

    def spread(row: Row) -> str:
        return NOT_APPLICABLE if row["kind"] == "floor" or len(row["values"]) < 2 else value(row["sd"])

    def minus(row: Row) -> str:
        return _against(row, reference, lambda d: points(d["value"]))

    def between(row: Row) -> str:
        return _against(row, reference, lambda d: f"{points(d['low'])} to {points(d['high'])}")

    def p_value(row: Row) -> str:
        return _against(row, reference, lambda d: formatting.p_value(d.get("p_holm")))

    heading = f"{formatting.metric(metric)}{unit}"
    corrected = [Column("p (Holm)", "p\n(Holm)", p_value, HOLM)] if covers_seeds(found) else []
    return [
        Column(heading, heading, lambda row: value(row["mean"]), over_seeds(found)),
        Column("sd", "sd", spread, "standard deviation over seeds"),
        Column("95% interval", "95% CI", interval, f"of the mean, {sampled(found)}"),
        Column(f"minus {reference}", f"minus\n{reference}", minus, f"the mean minus that of {reference}, in points"),
        Column("its 95% interval", "its 95% CI", between, f"of that difference, paired, {sampled(found)}"),
        *corrected,
    ]


def texts(found: Mapping[str, Any]) -> list[Column]:
    """What tasks whose targets are texts have beside their metric."""
    names = [name for name in ("loss", "rouge1", "rouge2", "rougeL") if name != found["metric"] and _any(found, name)]
    return [_other(name, over_seeds(found)) for name in names]


def covers_seeds(found: Mapping[str, Any]) -> bool:
    """Whether the intervals of a comparison cover the sampling of seeds."""
    return any(row.get("covers_seeds") for row in found["rows"])


def sampled(found: Mapping[str, Any]) -> str:
    """What the intervals of a comparison cover."""
    if covers_seeds(found):
        return "over runs with other seeds and over other examples"
    return f"over other examples, for these very trained prompts: fewer than {MIN_SEEDS} seeds allow no verdict"


def over_seeds(found: Mapping[str, Any]) -> str:
    """What a row's numbers are of."""
    count = len(found["seeds"])
    return "of 1 seed" if count == 1 else f"mean over {count} seeds"


def training() -> list[Column]:
    """The columns that say what training took."""
    return [
        Column("learning rate", "lr", _rate, "that counted, of each seed where they differ"),
        Column(
            "swept", "swept", _swept, "multiples of the method's rate that were best on select; no: it alone was tried"
        ),
        Column("trainable", "trained", lambda r: _count(r, "trainable"), "parameters that training changes"),
        Column("s/epoch", "s/epoch", lambda r: _seconds(r, "seconds_per_epoch"), "seconds of a pass over train"),
        Column(
            "training (s)",
            "train (s)",
            lambda r: _seconds(r, "seconds"),
            "seconds of all that makes what is used: learning rates tried, search, retraining",
        ),
        Column(
            "examples/s",
            "ex./s",
            lambda r: _cost(r, "examples_per_second", lambda value: f"{value:,.0f}"),
            "training examples a second, counted for every prompt that trains side by side",
        ),
        Column(
            "peak memory",
            "peak",
            lambda r: _cost(r, "peak_memory", formatting.storage),
            "while training: of the whole process on a CPU, of torch's allocator on a GPU",
        ),
    ]


def use(found: Mapping[str, Any]) -> list[Column]:
    """The columns that say what it takes to keep and use what was trained; latency where any was measured."""
    sizes = SIZES if any(row["latency"] for row in found["rows"]) else ()
    return [
        Column("stored", "stored", lambda r: _count(r, "stored"), "parameters to keep beside the model's own"),
        *(
            Column(
                f"latency ×, batch {size}",
                f"latency ×\nbatch {size}",
                partial(_latency, size),
                f"median time to answer {size} at once, over that of the model without what was trained",
            )
            for size in sizes
        ),
    ]


def build_tables(found: Mapping[str, Any]) -> list[tuple[str, list[Column], list[Row]]]:
    """The tables: what each is of, its columns and rows. Floors and controls stand in the first alone."""
    costly = [row for row in found["rows"] if row["kind"] == "method"]
    return [
        ("What each method gives", [*quality(found), *texts(found)], list(found["rows"])),
        ("What training took", training(), costly),
        ("What it takes to keep and use it", use(found), costly),
    ]


def build_narrow_tables(found: Mapping[str, Any]) -> list[tuple[str, list[Column], list[Row]]]:
    """The same for a terminal of 80 columns: what texts have beside their metric is a table of its own."""
    (heading, _, rows), *others = build_tables(found)
    beside = texts(found)
    more = [("Loss and further ROUGE", beside, rows)] if beside else []
    return [(heading, quality(found), rows), *more, *others]


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


def _against(row: Row, reference: str, text: Callable[[Mapping[str, Any]], str]) -> str:
    if row["name"] == reference:
        return NOT_APPLICABLE
    return _absent(row) if row["difference"] is None else text(row["difference"])


def _absent(row: Row) -> str:
    """Where a row has no such number: a floor may have none (copied sentences have no loss), others miss it."""
    return NOT_APPLICABLE if row["kind"] == "floor" else NOT_MEASURED


def _any(found: Mapping[str, Any], name: str) -> bool:
    return any(row["others"].get(name) is not None for row in found["rows"])


def _other(name: str, over: str) -> Column:
    value, unit = (_plain, "") if name == "loss" else (formatting.percent, " (%)")
    heading = f"{formatting.metric(name)}{unit}"

    def text(row: Row) -> str:
        found = row["others"].get(name)
        return _absent(row) if found is None else value(found)

    return Column(heading, heading, text, over)


def _plain(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:+.3f}"


def _cost(row: Row, name: str, text: Callable[[float], str]) -> str:
    return NOT_MEASURED if row[name] is None else text(row[name])


def _count(row: Row, name: str) -> str:
    """Parameters; a mean over seeds where a search leaves other sizes."""
    return _cost(row, name, lambda value: f"{value:,.0f}")


def _seconds(row: Row, name: str) -> str:
    return _cost(row, name, lambda value: f"{value:.3g}" if value < 100 else f"{value:,.0f}")


def _latency(size: str, row: Row) -> str:
    seconds = (row["latency"] or {}).get(size)
    return NOT_MEASURED if seconds is None else f"{seconds['ratio']:.2f}"


def cells(columns: Sequence[Column], row: Row) -> list[str]:
    """A row's texts, its label first."""
    return [label(row), *(column.text(row) for column in columns)]
