"""Settings side by side on several models, as in the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.studies.charts import bars
from softprune.studies.findings import Entry, Findings, Table
from softprune.studies.run_cache import safe
from softprune.studies.study_context import StudyContext
from softprune.studies.variant_tables import (
    Settings,
    difference_lines,
    differences,
    mean_cell,
    run_variants,
    score_lines,
    score_of,
    sentences,
    study_claims,
    variant_specs,
)


def conduct(study: StudyContext) -> Findings:
    """Every variant on every model of the option `backbones`: means over the tasks, then each model's own tables.

    Raises:
        SoftpruneError: no models are named, or two of one name, or what `variants` raises.
    """
    claims, models = study_claims(study), study_models(study)
    keys = {label: {"backbone.name": name} for label, name in models.items()}
    study.make([spec for each in keys.values() for spec in variant_specs(study, each)])  # all at once
    found = {label: run_variants(study, each) for label, each in keys.items()}
    tables = [_overview(study, found)]
    figures = [bars(tables[0], "models", study.config.title, tables[0].columns[1:], what="mean score on report (%)")]
    lines: list[str] = []
    for label, settings in found.items():
        compared = differences(study, settings, claims)
        scores = score_lines(study, settings, f"scores-{safe(label)}", label)
        tables += [
            scores,
            difference_lines(study, settings, compared, f"differences-{safe(label)}", f"Differences on {label}"),
        ]
        figures.append(bars(scores, f"scores-{safe(label)}", label, study.tasks))
        lines += [f"On {label}: {sentence}" for sentence in sentences(study, settings, compared)]
    return Findings(tuple(tables), tuple(figures), tuple(lines))


def study_models(study: StudyContext) -> dict[str, str]:
    """The models by the names that tables have for them; one that was asked for on its own is the only one.

    Raises:
        SoftpruneError: none, or two that tables would call the same.
    """
    asked = [study.config.backbone] if study.config.backbone else study.options.get("backbones") or []
    models = {Path(str(name)).name: str(name) for name in asked}
    if not models or len(models) < len(asked):
        raise SoftpruneError(
            "different models, each with a name of its own",
            ", ".join(map(str, asked)) or "none",
            "options.backbones=...",
        )
    return models


def _overview(study: StudyContext, found: Mapping[str, Settings]) -> Table:
    """Settings by models: the mean over tasks, or with its interval the score on the only one."""
    cell = mean_cell if len(study.tasks) > 1 else partial(score_of, study, task=study.tasks[0])
    rows: list[tuple[Entry, ...]] = []
    for name, first in next(iter(found.values())).items():
        rows.append((first.variant.label, *(cell(settings[name]) for settings in found.values())))
    note = f"Mean over {', '.join(study.tasks)}, without an interval." if len(study.tasks) > 1 else study.tasks[0]
    return Table("models", study.config.title, ("%", *found), tuple(rows), note)
