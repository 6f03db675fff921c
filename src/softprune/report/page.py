"""The page of a run: one HTML file that needs nothing else, for a reader who didn't run it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprune.config.criteria import CRITERIA
from softprune.errors import SoftpruneError
from softprune.report import formatting, glosses, table
from softprune.report.prediction_changes import Changes, changed_answers, shortened, written_samples
from softprune.report.run_reader import Run, read_run
from softprune.runs import atomic_io
from softprune.runs.record_parts import Part
from softprune.types import Candidate

try:
    from softprune.report import interactive, templating
    from softprune.report.explore import explored, neighbours
    from softprune.report.figures import Drawn, Plan, figures_of, render
    from softprune.report.plots import plots_of
    from softprune.report.run_comparison import Beside, beside
except ImportError as error:
    missing = "matplotlib, jinja2 and plotly for reports"
    raise SoftpruneError(missing, str(error), "pip install 'softprune[report]'") from error


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as the page shows it; without `drawn` it says what is missing."""

    plan: Plan
    drawn: Drawn | None

    @property
    def light(self) -> str:
        """Data address of the light PNG."""
        return _data(self.drawn.light_png) if self.drawn else ""

    @property
    def dark(self) -> str:
        """Data address of the dark PNG."""
        return _data(self.drawn.dark_png) if self.drawn else ""


def write(folder: Path, others: Sequence[Path] = ()) -> Path:
    """Write the figures, then the page, which shows the results of other runs beside its own."""
    run = read_run(folder)
    compared = [beside(run, read_run(other)) for other in others]
    pictures = [Picture(plan, render(plan.draw) if plan.draw else None) for plan in figures_of(run)]
    write_figures(folder / "report" / "figures", pictures)
    page = folder / "report" / "index.html"
    atomic_io.write_bytes(page, html(run, pictures, compared).encode("utf-8", errors="replace"))
    return page


def html(run: Run, pictures: list[Picture], compared: Sequence[Beside] = ()) -> str:
    """The page's text; plotly stands in it where there are pictures that it draws."""
    environment = templating.environment()
    environment.filters["known"] = _known
    plots = plots_of(run, [picture.plan for picture in pictures])
    found, near = explored(run), neighbours(run)
    data = {"explore": found.data() if found else None, "neighbours": near}
    assets = interactive.assets(list(plots.values()), data, [interactive.script("run.js")])
    more = {
        "plots": plots,
        "assets": assets,
        "compared": compared,
        "explored": found,
        "neighbours": near,
        "masks_kept": run.masks is not None,
    }
    return environment.get_template("page.html.j2").render(_context(run, pictures) | more)


def _context(run: Run, pictures: list[Picture]) -> dict[str, Any]:
    rows, record = table.comparison_rows(run), run.record
    objective = record.selection.objective if record.selection else None
    criterion = CRITERIA.get(record.importance.method) if record.importance else None
    headline = record.headline
    return {
        "run": run,
        "record": record,
        "xprompt": run.prunes,
        "title": formatting.printable(run.title),
        "backbone": _fields(record.backbone),
        "task": _fields(record.task),
        "sizes": _fields(record.task.sizes),
        "truncated": _fields(record.task.truncated),
        "prompt": _fields(record.prompt),
        "adapter": _fields(record.adapter),
        "importance": _fields(record.importance),
        "by_gates": record.search.strategy == "learned",
        "selection": _fields(record.selection),
        "settings": _settings(run),
        "sample": _sample(run),
        "notes": _notes(run),
        "start": glosses.START.get(record.prompt.init) if record.prompt else None,
        "method": criterion.gloss if criterion else None,
        "removal": glosses.REMOVAL.get(str(record.removal)),
        "objective": glosses.OBJECTIVE.get(str(objective), _known(objective)),
        "columns": table.columns(run),
        "rows": rows,
        "cell": table.shown,
        "mark_meaning": table.mark_meaning(run) if any(row.at_chance for row in rows) else None,
        "losses": _losses(run),
        "written": written_samples(run),
        "verdict": record.verdict,
        "headline": headline,
        "mcnemar": _fields(headline.mcnemar if headline else None),
        "random": headline.random if headline else None,
        "ticket": _fields(record.ticket),
        "kept": _kept_tokens(run),
        "pictures": pictures,
        "candidates": sorted(run.candidates, key=_by_size),
        "changes": _changes(run),
        "directions": glosses.WRITTEN_DIRECTIONS if run.is_generation else glosses.DIRECTIONS,
        "cost": _fields(record.cost),
        "phases": record.cost.phases,
        "hardware": _fields(record.hardware),
        "versions": record.versions,
    }


class _Fields(dict[str, Any]):
    """A mapping for the template: a field that a run doesn't have reads as None, which shows as not measured."""

    def __missing__(self, key: str) -> None:
        return None


def _fields(part: Part | None) -> _Fields:
    return _Fields({} if part is None else part.document())


def _known(value: object) -> str:
    """A value as text; nothing is "not measured"."""
    return formatting.NOT_MEASURED if value is None or value == "" else formatting.printable(value)


def _settings(run: Run) -> dict[str, str]:
    """Each setting's name and value, in words where there are any."""
    settings = _fields(run.record.settings)
    said = {name: value for name, value in settings.items() if not (run.is_generation and name == "score")}
    known = glosses.VALUES | (glosses.WRITTEN_VALUES if run.is_generation else {})
    return {glosses.SETTINGS.get(name, name): _setting(name, value, known) for name, value in said.items()}


def _setting(name: str, value: object, known: Mapping[tuple[str, str], str]) -> str:
    if isinstance(value, int | float):
        return formatting.number(value)
    gloss = known.get((name, str(value)))
    return f"{_known(value)} ({gloss})" if gloss else _known(value)


def _notes(run: Run) -> list[str]:
    """The run's and the task's notes, each once; those in the description of the sets have been read there."""
    found = [*run.record.task.notes, *run.record.notes]
    description = run.record.selection.description if run.record.selection else ""
    return list(dict.fromkeys(formatting.printable(note) for note in found if note not in description))


def _sample(run: Run) -> str | None:
    """The first training example as the model reads it; cut where it is long."""
    text = run.record.task.sample
    return shortened(formatting.printable(text)) if text else None


def _losses(run: Run) -> list[tuple[str, _Fields]]:
    """Of written texts: each trained prompt's loss on the three sets."""
    rows = ((label, run.results[name]) for name, label in table.labels(run).items())
    return [(label, _Fields(row.losses)) for label, row in rows if row is not None and row.losses]


def _kept_tokens(run: Run) -> list[str]:
    return [f"T{i}" for i, kept in enumerate(run.ticket.token_P) if kept] if run.ticket else []


def _by_size(candidate: Candidate) -> tuple[int, str]:
    return (candidate.parameters, candidate.id)


def _changes(run: Run) -> Changes | None:
    control, winner = run.predictions.get("control"), run.predictions.get("winner")
    return changed_answers(control, winner) if control and winner else None


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def write_figures(folder: Path, pictures: list[Picture]) -> None:
    """PNG and SVG of every figure; files of an earlier report that this one doesn't have are removed."""
    for picture in pictures:
        forms: Mapping[str, bytes | None] = {
            "png": picture.drawn.light_png if picture.drawn else None,
            "svg": picture.drawn.svg if picture.drawn else None,
        }
        for form, data in forms.items():
            path = folder / f"{picture.plan.name}.{form}"
            if data is None:
                path.unlink(missing_ok=True)
            else:
                atomic_io.write_bytes(path, data)
