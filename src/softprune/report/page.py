"""The page of a run: one HTML file that needs nothing else, for a reader who didn't run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softprune.config.criteria import CRITERIA
from softprune.errors import SoftpruneError
from softprune.report import formatting, glosses, table
from softprune.report.prediction_changes import changed_answers, shorten_text, written_samples
from softprune.report.run_reader import Run, read_run
from softprune.runs import atomic_io
from softprune.runs.record_parts import Part

try:
    from softprune.report import interactive, templating
    from softprune.report.charts import plot_chart
    from softprune.report.explore import collect_controls, collect_neighbours
    from softprune.report.figures import plan_figures
    from softprune.report.pictures import Picture, draw_pictures
    from softprune.report.run_comparison import RunComparison, compare_runs
except ImportError as error:
    missing = "matplotlib, jinja2 and plotly for reports"
    raise SoftpruneError(missing, str(error), "pip install 'softprune[report]'") from error


def write(folder: Path, others: Sequence[Path] = ()) -> Path:
    """Write the figures, then the page, which shows the results of other runs beside its own."""
    run = read_run(folder)
    compared = [compare_runs(run, read_run(other)) for other in others]
    pictures = draw_pictures(plan_figures(run), folder / "report" / "figures")
    page = folder / "report" / "index.html"
    atomic_io.write_bytes(page, html(run, pictures, compared).encode("utf-8", errors="replace"))
    return page


def html(run: Run, pictures: list[Picture], compared: Sequence[RunComparison] = ()) -> str:
    """The page's text; plotly is in it where there are charts that it draws."""
    environment = templating.environment()
    environment.filters["known"] = _known
    plots = {p.plan.name: plot_chart(p.plan, p.plan.chart) for p in pictures if p.plan.chart is not None}
    controls, near = collect_controls(run), collect_neighbours(run)
    data = {"explore": controls, "neighbours": near}
    assets = interactive.assets(list(plots.values()), data, [interactive.read_script("run.js")])
    return environment.get_template("page.html.j2").render(
        _context(run),
        pictures=pictures,
        plots=plots,
        assets=assets,
        compared=compared,
        explored=controls,
        neighbours=near,
        masks_kept=run.masks is not None,
    )


class _Fields(dict[str, Any]):
    """A mapping for the template: a field that a run doesn't have reads as None, which shows as not measured."""

    def __missing__(self, key: str) -> None:
        return None


def _fields(part: Part | None) -> _Fields:
    return _Fields({} if part is None else part.document())


def _known(value: object) -> str:
    """A value as text; nothing is "not measured"."""
    return formatting.NOT_MEASURED if value is None or value == "" else formatting.printable(value)


def _context(run: Run) -> dict[str, Any]:
    rows, record, headline = table.comparison_rows(run), run.record, run.record.headline
    names = ("backbone", "task", "prompt", "adapter", "importance", "selection", "ticket", "cost", "hardware")
    parts = {name: _fields(getattr(record, name)) for name in names}
    objective = parts["selection"]["objective"]
    criterion = CRITERIA.get(parts["importance"]["method"])
    control, winner = run.predictions.get("control"), run.predictions.get("winner")
    # Those in the description of the sets have been read there.
    description = parts["selection"]["description"] or ""
    notes = [note for note in (*record.task.notes, *record.notes) if note not in description]
    losses = []  # of written texts: each trained prompt's loss on the three sets
    for name, label in table.labels(run).items():
        row = run.results[name]
        if row is not None and row.losses:
            losses.append((label, _Fields(row.losses)))
    return {
        **parts,
        "run": run,
        "record": record,
        "xprompt": run.prunes,
        "title": formatting.printable(run.title),
        "sizes": _fields(record.task.sizes),
        "truncated": _fields(record.task.truncated),
        "by_gates": record.search.strategy == "learned",
        "settings": _describe_settings(run),
        "sample": shorten_text(formatting.printable(record.task.sample)) if record.task.sample else None,
        "notes": list(dict.fromkeys(map(formatting.printable, notes))),
        "start": glosses.START.get(parts["prompt"]["init"]),
        "method": criterion.gloss if criterion else None,
        "removal": glosses.REMOVAL.get(str(record.removal)),
        "objective": glosses.OBJECTIVE.get(str(objective), _known(objective)),
        "columns": table.columns(run),
        "rows": rows,
        "cell": table.shown,
        "mark_meaning": table.mark_meaning(run) if any(row.at_chance for row in rows) else None,
        "losses": losses,
        "written": written_samples(run),
        "headline": headline,
        "mcnemar": _fields(headline.mcnemar if headline else None),
        "kept": [f"T{i}" for i, kept in enumerate(run.ticket.token_P) if kept] if run.ticket else [],
        "candidates": [(candidate, table.candidate_cells(run, candidate)) for candidate in run.smallest_first],
        "changes": changed_answers(control, winner) if control and winner else None,
        "directions": glosses.WRITTEN_DIRECTIONS if run.is_generation else glosses.DIRECTIONS,
    }


def _describe_settings(run: Run) -> dict[str, str]:
    """Each setting's name and value, in words where there are any."""
    known: Mapping[tuple[str, str], str] = glosses.VALUES
    if run.is_generation:
        known = glosses.VALUES | glosses.WRITTEN_VALUES
    settings = {}
    for name, value in _fields(run.record.settings).items():
        if run.is_generation and name == "score":
            continue  # no answers are scored
        shown = formatting.number(value) if isinstance(value, int | float) else _known(value)
        gloss = known.get((name, str(value)))
        settings[glosses.SETTINGS.get(name, name)] = f"{shown} ({gloss})" if gloss else shown
    return settings
