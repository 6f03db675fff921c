"""Settings side by side: the same recipe with other keys, as in the paper's Tables 1, 2, 4, 5, 6 and 8."""

from __future__ import annotations

from softprune.studies.charts import bars
from softprune.studies.findings import Findings
from softprune.studies.proportions import published_intervals
from softprune.studies.study_context import StudyContext
from softprune.studies.variant_tables import (
    difference_lines,
    differences,
    run_variants,
    score_lines,
    sentences,
    size_lines,
    study_claims,
    variant_specs,
)


def conduct(study: StudyContext) -> Findings:
    """A run for every variant, task and seed; what each reached, what the claims come to, and what survived.

    Raises:
        SoftpruneError: the study names no variants, or a claim of others.
    """
    claims = study_claims(study)
    study.make(variant_specs(study))  # all at once, whoever makes them
    settings = run_variants(study)
    found = differences(study, settings, claims)
    scores = score_lines(study, settings, "scores", study.config.title)
    compared = difference_lines(study, settings, found, "differences", "Differences")
    sizes = size_lines(study, settings, "sizes")
    theirs = published_intervals(study.config.published, study.options)
    tables = (scores, compared, *(table for table in (sizes, theirs.table) if table is not None))
    figure = bars(scores, "scores", study.config.title, study.tasks)
    return Findings(tables, (figure,), (*sentences(study, settings, found), *theirs.sentences))
