"""The page of a study: one HTML file that needs nothing else, ours beside what was published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from softprune.config import Study
from softprune.errors import SoftpruneError
from softprune.runs.comparison_record import StudyRecord
from softprune.studies.findings import Figure, Table, format_entry, has_stars, load_findings
from softprune.studies.folder import RUNS, write_texts
from softprune.studies.tables import PUBLISHED, STAR, published_tables

try:
    from softprune.report import templating
    from softprune.report.interactive import SERIES, Cell, Numbers, Plot, assets
except ImportError as error:
    raise SoftpruneError("plotly and jinja2 for pages", str(error), "pip install 'softprune[report]'") from error

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_ROWS: Final = 400  # a longer table can't be read; the numbers are in study.json


def write_page(folder: Path, study: Study, record: StudyRecord) -> Path:
    """Write the page of a finished study."""
    write_texts(folder, {"index.html": html(study, record)})
    return folder / "index.html"


def html(study: Study, record: StudyRecord) -> str:
    """The page's text."""
    findings = load_findings(record.findings)
    plots = [make_plot(figure) for figure in findings.figures]
    # Our first table, which answers the question, is shown beside the source's.
    theirs = [replace(table, title=table.title.removeprefix(PUBLISHED)) for table in published_tables(study.published)]
    sides = [("Measured here", findings.tables[:1]), ("As published", theirs)]
    runs: list[tuple[Cell, ...]] = []
    for run in record.runs:
        took = None if run.seconds is None else round(run.seconds, 1)
        runs.append((f"../{RUNS}/{run.folder}", run.task, run.seed, run.kind, took))
    work = [(name, round(seconds, 1)) for name, seconds in record.work.items()]
    seconds = {"runs": _rounded_sum(run.seconds for run in record.runs), "work": _rounded_sum(record.work.values())}
    template = templating.environment(_TEMPLATES).get_template("study.html.j2")
    return template.render(
        study=study,
        size=study.size,
        settings=study.dump(),
        record=record,
        sentences=findings.sentences,
        sides=[(heading, _with_numbers(tables)) for heading, tables in sides if tables],
        others=_with_numbers(findings.tables[1:]),
        star=STAR if has_stars(findings.tables) else None,
        plots=plots,
        runs=Numbers(("folder", "task", "seed", "kind", "seconds"), tuple(runs)),
        work=Numbers(("piece of work", "seconds"), tuple(work)),
        seconds=seconds,
        assets=assets(plots),
    )


def _with_numbers(tables: Sequence[Table]) -> list[tuple[Table, Numbers]]:
    """Tables, and their cells as the page has them."""
    pairs = []
    for table in tables:
        rows = tuple(tuple(map(format_entry, row)) for row in table.rows)
        pairs.append((table, Numbers(tuple(table.columns), rows)))
    return pairs


def _rounded_sum(values: Iterable[float | None]) -> float | None:
    """The sum; None where a part wasn't measured."""
    parts = list(values)
    return None if None in parts else round(sum(part or 0.0 for part in parts), 1)


def make_plot(figure: Figure) -> Plot:
    """The figure with what the experiment left to the page: its colours, and its numbers in a table."""
    traces = []
    for trace in figure.traces:
        scale = {}
        if trace.get("type") == "heatmap":  # around a middle it has two colours, else one that gets stronger
            scale = {"colorscale": "theme:signed_scale" if "zmid" in trace else "theme:scale"}
        traces.append({**scale, **trace})
    colours = [f"theme:c{at}" for at in range(len(SERIES["light"]))]
    layout = {"height": 420, "colorway": colours, **figure.layout}
    return Plot(figure.name, figure.title, figure.caption, traces, layout, _plot_numbers(figure))


def _plot_numbers(figure: Figure) -> Numbers:
    """A heatmap's numbers as it has them; else name, x, y and the ends of the error bar of each point."""
    rows: list[tuple[Cell, ...]] = []
    if len(figure.traces) == 1 and "z" in figure.traces[0]:
        heatmap, values = figure.traces[0], figure.traces[0]["z"]
        across = heatmap.get("x") or range(len(values[0]) if values else 0)
        rows = [(str(name), *row) for name, row in zip(heatmap.get("y") or range(len(values)), values, strict=True)]
        return Numbers(("", *map(str, across)), tuple(rows)) if len(rows) <= _MOST_ROWS else Numbers((), ())
    for trace in figure.traces:
        if "x" not in trace or "y" not in trace:
            continue
        # A bar that lies has its numbers, and its error bar, along x.
        over = "x" if trace.get("orientation") == "h" else "y"
        bars = trace.get(f"error_{over}") or {}
        up = bars.get("array") or [None] * len(trace["x"])
        down = bars.get("arrayminus") or up
        for x, y, value, more, less in zip(trace["x"], trace["y"], trace[over], up, down, strict=True):
            ends = (None, None) if None in (value, more, less) else (value - less, value + more)
            rows.append((str(trace.get("name", "")), x, y, *ends))
    if not rows or len(rows) > _MOST_ROWS:
        return Numbers((), ())
    headings = [""]
    for axis in ("xaxis", "yaxis"):
        title = (figure.layout.get(axis) or {}).get("title") or ""  # plotly takes a text, or a mapping that holds it
        headings.append(str(title.get("text", "") if isinstance(title, Mapping) else title) or axis[0])
    headings += ["low", "high"]
    # Columns without anything are left out, but for x.
    kept = [at for at in range(len(headings)) if at == 1 or any(row[at] not in (None, "") for row in rows)]
    return Numbers(tuple(headings[at] for at in kept), tuple(tuple(row[at] for at in kept) for row in rows))
