"""Settings side by side: the same recipe with other keys, as in the paper's Tables 1, 2, 4, 5, 6 and 8."""

from __future__ import annotations

from softprune.studies.figures import bars
from softprune.studies.findings import Findings
from softprune.studies.published_intervals import published_intervals
from softprune.studies.study_context import StudyContext
from softprune.studies.variant_tables import (
    claim_sentences,
    claim_table,
    run_variants,
    size_table,
    study_claims,
    variant_scores,
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
    scores = variant_scores(study, settings, "scores", study.config.title)
    differences = claim_table(study, settings, claims, "differences", "Differences")
    sizes = size_table(study, settings, "sizes")
    theirs, further = published_intervals(study.config.published, study.options)
    tables = [scores, differences, *([] if sizes is None else [sizes]), *theirs]
    figure = bars(scores, "scores", study.config.title, study.tasks)
    return Findings(tables, [figure], [*claim_sentences(study, claims, differences), *further])
