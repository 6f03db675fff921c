"""What a study found, as it is kept in study.json and shown: tables, figures, sentences. Values are fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of a table.

    Attributes:
        value: a fraction, or whatever `unit` says; None where it wasn't measured.
        low, high: its 95% interval; None where there is none.
        unit: `percent` and `points` show a fraction a hundredfold, `points` with its sign; `number`, `count` as it is.
        chance: whether the unpruned prompt behind it isn't shown to be above the constant answer.
        note: said behind it.
        seeds: training seeds of the side that has fewer; None where the number is no comparison of trained prompts.
        p: of "no difference"; None where it wasn't tested.
        p_holm: the same, corrected for the other differences of its family.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = "percent"
    chance: bool = False
    note: str = ""
    seeds: int | None = None
    p: float | None = None
    p_holm: float | None = None


Entry: TypeAlias = "Cell | str"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of ours, or the source's.

    Attributes:
        name: short, for ids and files.
        title: over it.
        columns: the heads, that of the rows first.
        rows: cells, the row's name first.
        note: under it.
        published: whether it is the source's.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""
    published: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.name}: rows of other lengths than its {len(self.columns)} columns")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as plotly has it; colours are the page's.

    Attributes:
        name: short, for ids.
        title: over it.
        caption: what it shows, for those who don't see it too.
        traces, layout: plotly's.
    """

    name: str
    title: str
    caption: str
    traces: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a study found."""

    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    sentences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for parts in (self.tables, self.figures):
            if len({part.name for part in parts}) < len(parts):
                raise ValueError(f"two of one name: {', '.join(part.name for part in parts)}")

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def load_findings(document: Mapping[str, Any]) -> Findings:
    """What `document` was made of."""
    return Findings(
        tuple(_table(table) for table in document["tables"]),
        tuple(Figure(**{**figure, "traces": tuple(figure["traces"])}) for figure in document["figures"]),
        tuple(document["sentences"]),
    )


def _table(document: Mapping[str, Any]) -> Table:
    rows = tuple(tuple(_entry(entry) for entry in row) for row in document["rows"])
    return Table(**{**document, "columns": tuple(document["columns"]), "rows": rows})


def _entry(entry: str | Mapping[str, Any]) -> Entry:
    return entry if isinstance(entry, str) else Cell(**entry)


def shown(entry: Entry, *, intervals: bool = True) -> str:
    """A cell as text: 76.2 (72.0 to 80.4), with a star where it isn't interpretable."""
    if isinstance(entry, str):
        return entry
    if entry.value is None:
        return f"{NOT_MEASURED}{f' ({entry.note})' if entry.note else ''}"
    text = _number(entry.value, entry.unit)
    if intervals and entry.low is not None and entry.high is not None:
        text += f" ({_number(entry.low, entry.unit)} to {_number(entry.high, entry.unit)})"
    return f"{text}{'*' if entry.chance else ''}{f' {entry.note}' if entry.note else ''}"


def _number(value: float, unit: str) -> str:
    forms = {"percent": f"{100 * value:.1f}", "points": f"{100 * value:+.1f}", "count": f"{round(value):,}"}
    return forms.get(unit, f"{value:.3g}")


def starred(tables: Sequence[Table]) -> bool:
    """Whether any cell isn't interpretable."""
    return any(isinstance(entry, Cell) and entry.chance for table in tables for row in table.rows for entry in row)
