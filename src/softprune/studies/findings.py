"""What a study found, as study.json holds it: tables, figures as plotly has them, sentences. Values are fractions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Self, TypeAlias

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of a table. `percent` and `points` show a fraction a hundredfold, `points` with its sign."""

    value: float | None  # a fraction, or whatever `unit` says; None where it wasn't measured
    low: float | None = None  # its 95% interval; None where there is none
    high: float | None = None
    unit: str = "percent"  # percent, points, number or count
    chance: bool = False  # whether the unpruned prompt behind it isn't shown to be above the constant answer
    note: str = ""  # behind it
    seeds: int | None = None  # training seeds of the side that has fewer; None where no trained prompts are compared
    p: float | None = None  # of "no difference"; None where it wasn't tested
    p_holm: float | None = None  # the same, corrected for the other differences of its family


Entry: TypeAlias = "Cell | str"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of ours, or the source's."""

    name: str  # short, for ids and files
    title: str
    columns: Sequence[str]  # the heads, that of the rows first
    rows: Sequence[Sequence[Entry]]  # the row's name first
    note: str = ""
    published: bool = False  # whether it is the source's

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.name}: expected rows of {len(self.columns)} cells")

    @classmethod
    def from_records(cls, name: str, title: str, records: Sequence[Mapping[str, Entry]], note: str = "") -> Self:
        """A table of at least one row, each by the heads of its columns."""
        return cls(name, title, tuple(records[0]), [list(record.values()) for record in records], note)

    @classmethod
    def from_columns(
        cls, name: str, title: str, head: str, columns: Mapping[str, Mapping[str, Entry]], note: str = ""
    ) -> Self:
        """A table of at least one column, each by the names of its rows; `head` is that of the names."""
        rows = [(label, *(column[label] for column in columns.values())) for label in next(iter(columns.values()))]
        return cls(name, title, (head, *columns), rows, note)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as plotly has it; colours are the page's."""

    name: str  # short, for ids
    title: str
    caption: str  # what it shows, for those who don't see it too
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a study found."""

    tables: Sequence[Table]
    figures: Sequence[Figure] = ()
    sentences: Sequence[str] = ()

    def __post_init__(self) -> None:
        for names in ([table.name for table in self.tables], [figure.name for figure in self.figures]):
            if len(set(names)) < len(names):
                raise ValueError(f"expected different names, found {', '.join(names)}")

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def load_findings(document: Mapping[str, Any]) -> Findings:
    """The findings that `document` was made of."""
    tables = []
    for table in document["tables"]:
        rows = []
        for row in table["rows"]:
            rows.append(tuple(entry if isinstance(entry, str) else Cell(**entry) for entry in row))
        tables.append(Table(**{**table, "columns": tuple(table["columns"]), "rows": tuple(rows)}))
    figures = tuple(Figure(**{**figure, "traces": tuple(figure["traces"])}) for figure in document["figures"])
    return Findings(tuple(tables), figures, tuple(document["sentences"]))


def format_entry(entry: Entry) -> str:
    """A cell as text: 76.2 (72.0 to 80.4), with a star where it isn't interpretable."""
    if isinstance(entry, str):
        return entry
    if entry.value is None:
        return f"{NOT_MEASURED}{f' ({entry.note})' if entry.note else ''}"
    text = _format_number(entry.value, entry.unit)
    if entry.low is not None and entry.high is not None:
        text += f" ({_format_number(entry.low, entry.unit)} to {_format_number(entry.high, entry.unit)})"
    return f"{text}{'*' if entry.chance else ''}{f' {entry.note}' if entry.note else ''}"


def _format_number(value: float, unit: str) -> str:
    if unit == "percent":
        return f"{100 * value:.1f}"
    if unit == "points":
        return f"{100 * value:+.1f}"
    return f"{round(value):,}" if unit == "count" else f"{value:.3g}"


def has_stars(tables: Sequence[Table]) -> bool:
    """Whether any cell isn't interpretable."""
    entries = chain.from_iterable(row for table in tables for row in table.rows)
    return any(isinstance(entry, Cell) and entry.chance for entry in entries)


# --- figures ---


def bars(
    table: Table,
    name: str,
    title: str,
    columns: Sequence[str],
    *,
    what: str = "score on report (%)",
    rows: Sequence[str] = (),
) -> Figure:
    """A group of bars for each of some columns, a bar for each row that has a number there.

    `rows` are names of those that are drawn, empty for all. Cells are fractions, drawn as percent or points.
    """
    traces: list[dict[str, Any]] = []
    incomplete: list[str] = []
    for row in table.rows:
        label = str(row[0])
        if rows and label not in rows:
            continue
        measured: dict[str, Cell] = {}
        for column in columns:
            cell = row[table.columns.index(column)]
            if isinstance(cell, Cell) and cell.value is not None:
                measured[column] = cell
        if measured:
            trace = {
                "type": "bar",
                "name": label,
                "x": list(measured),
                "y": [100 * (cell.value or 0.0) for cell in measured.values()],
                "text": ["*" if cell.chance else "" for cell in measured.values()],  # what isn't interpretable
                "textposition": "outside",
                "error_y": error_bars(measured.values()),
            }
            traces.append(trace)
        if len(measured) < len(columns):
            incomplete.append(label)
    gaps = f" Without a bar where the table has no number: {', '.join(incomplete)}." if incomplete else ""
    caption = (
        f"Bars: {what} of {', '.join(str(trace['name']) for trace in traces)}, side by side for "
        f"{', '.join(columns)}; lines are the 95% intervals of the table, which has the same numbers.{gaps}"
    )
    return Figure(name, title, caption, traces, {"barmode": "group", **axes(y=what)})


def error_bars(cells: Iterable[Cell]) -> dict[str, Any]:
    """The intervals of fractions in percent, as plotly has them; none where a cell has none."""
    above: list[float | None] = []
    below: list[float | None] = []
    for cell in cells:
        if cell.value is None or cell.low is None or cell.high is None:
            above.append(None)
            below.append(None)
        else:
            above.append(100 * (cell.high - cell.value))
            below.append(100 * (cell.value - cell.low))
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below}


def points(name: str, x: Sequence[Any], y: Sequence[Any], mode: str = "markers", **more: Any) -> dict[str, Any]:
    """A trace of points, or of lines through them."""
    return {"type": "scatter", "mode": mode, "name": name, "x": list(x), "y": list(y), **more}


def axes(x: str | None = None, y: str | None = None) -> dict[str, Any]:
    """The layout's titles of both axes."""
    titles = {"xaxis": x, "yaxis": y}
    return {axis: {"title": {"text": title}} for axis, title in titles.items() if title is not None}
