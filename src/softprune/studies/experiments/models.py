"""Settings side by side on several models, as in the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.studies.figures import bars
from softprune.studies.findings import Entry, Findings, Table
from softprune.studies.run_cache import safe
from softprune.studies.score_rows import mean_cell, score_cell
from softprune.studies.study_context import StudyContext
from softprune.studies.variant_tables import (
    Settings,
    claim_sentences,
    claim_table,
    run_variants,
    study_claims,
    variant_scores,
    variant_specs,
)


def conduct(study: StudyContext) -> Findings:
    """Every variant on every model of the option `backbones`: means over the tasks, then each model's own tables.

    Raises:
        SoftpruneError: no models are named, or two of one name, or what `variants` raises.
    """
    claims, models = study_claims(study), study_models(study)
    keys = {label: {"backbone.name": name} for label, name in models.items()}
    specs = []
    for each in keys.values():
        specs += variant_specs(study, each)
    study.make(specs)  # all at once, whoever makes them
    by_model = {label: run_variants(study, each) for label, each in keys.items()}
    overview = _overview(study, by_model)
    tables, sentences = [overview], []
    figures = [bars(overview, "models", study.config.title, overview.columns[1:], what="mean score on report (%)")]
    for label, settings in by_model.items():
        scores = variant_scores(study, settings, f"scores-{safe(label)}", label)
        differences = claim_table(study, settings, claims, f"differences-{safe(label)}", f"Differences on {label}")
        tables += [scores, differences]
        figures.append(bars(scores, scores.name, label, study.tasks))
        sentences += [f"On {label}: {sentence}" for sentence in claim_sentences(study, claims, differences)]
    return Findings(tables, figures, sentences)


def study_models(study: StudyContext) -> dict[str, str]:
    """The models by the names that tables have for them; one that was asked for on its own is the only one.

    Raises:
        SoftpruneError: none, or two that tables would call the same.
    """
    asked = [study.config.backbone] if study.config.backbone else study.options.get("backbones") or []
    models = {Path(str(name)).name: str(name) for name in asked}
    if not models or len(models) < len(asked):
        found = ", ".join(map(str, asked)) or "none"
        raise SoftpruneError("different models, each with a name of its own", found, "options.backbones=...")
    return models


def _overview(study: StudyContext, by_model: Mapping[str, Settings]) -> Table:
    """Settings by models: the mean over tasks, or with its interval the score on the only one."""
    several, task = len(study.tasks) > 1, study.tasks[0]
    rows: list[list[Entry]] = []
    for name, first in next(iter(by_model.values())).items():
        entries: list[Entry] = [first.variant.label]
        for settings in by_model.values():
            row = settings[name].row
            if row.missing or several:
                entries.append(mean_cell(row))
            else:
                entries.append(score_cell(study, task, row.outcomes[task], row.at_chance[task]))
        rows.append(entries)
    note = f"Mean over {', '.join(study.tasks)}, without an interval." if several else task
    return Table("models", study.config.title, ("%", *by_model), rows, note)
