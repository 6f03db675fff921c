"""The page of a study: one HTML file that needs nothing else, ours beside what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from softprune.config import Study
from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.studies.findings import Findings, Table, format_entry, has_stars, load_findings
from softprune.studies.folder import RUNS
from softprune.studies.tables import PUBLISHED, STAR, published_tables

try:
    from softprune.report import templating
    from softprune.report.interactive import Numbers, assets
    from softprune.studies.plots import make_plot
except ImportError as error:
    raise SoftpruneError("plotly and jinja2 for pages", str(error), "pip install 'softprune[report]'") from error

Shown = tuple[Table, Numbers]
"""A table, and its cells as the page has them."""
_TEMPLATES = Path(__file__).parent / "templates"


def write_page(folder: Path, study: Study, info: Mapping[str, Any]) -> Path:
    """Write the page of a finished study."""
    page = folder / "index.html"
    atomic_io.write_bytes(page, html(study, info).encode("utf-8", errors="replace"))
    return page


def html(study: Study, info: Mapping[str, Any]) -> str:
    """The page's text.

    Args:
        study: its settings.
        info: what its study.json holds.
    """
    findings = load_findings(info["findings"])
    plots = [make_plot(figure) for figure in findings.figures]
    return (
        templating.environment(_TEMPLATES)
        .get_template("study.html.j2")
        .render(
            study=study,
            size=study.size,
            settings=study.dump(),
            info=info,
            sentences=findings.sentences,
            sides=_sides(study, findings),
            others=_with_numbers(findings.tables[1:]),
            star=STAR if has_stars(findings.tables) else None,
            plots=plots,
            runs=_runs(info["runs"]),
            work=Numbers(("piece of work", "seconds"), tuple((n, round(s, 1)) for n, s in info["work"].items())),
            seconds={"runs": _sum(run["seconds"] for run in info["runs"]), "work": _sum(info["work"].values())},
            assets=assets(plots),
        )
    )


def _sides(study: Study, findings: Findings) -> list[tuple[str, list[Shown]]]:
    """Our first table, which answers the question, and the source's beside it where there are any."""
    theirs = [replace(t, title=t.title.removeprefix(PUBLISHED)) for t in published_tables(study.published)]
    sides = (("Measured here", findings.tables[:1]), ("As published", theirs))
    return [(heading, _with_numbers(tables)) for heading, tables in sides if tables]


def _with_numbers(tables: Sequence[Table]) -> list[Shown]:
    pairs = []
    for table in tables:
        rows = tuple(tuple(map(format_entry, row)) for row in table.rows)
        pairs.append((table, Numbers(tuple(table.columns), rows)))
    return pairs


def _runs(runs: Sequence[Mapping[str, Any]]) -> Numbers:
    rows = tuple((f"../{RUNS}/{r['folder']}", r["task"], r["seed"], r["kind"], _seconds(r["seconds"])) for r in runs)
    return Numbers(("folder", "task", "seed", "kind", "seconds"), rows)


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _sum(values: Any) -> float | None:
    """The sum, or nothing where a part wasn't measured."""
    parts = list(values)
    return None if None in parts else round(sum(parts), 1)
