"""Settings side by side: the same recipe with other keys, as in the paper's Tables 1, 2, 4, 5, 6 and 8."""

from __future__ import annotations

from softprune.studies.charts import bars
from softprune.studies.findings import Findings
from softprune.studies.proportions import published_intervals
from softprune.studies.study_context import Bench
from softprune.studies.variant_tables import (
    claims_of,
    difference_lines,
    differences,
    score_lines,
    sentences,
    settings_of,
    size_lines,
    specs_of,
)


def conduct(bench: Bench) -> Findings:
    """A run for every variant, task and seed; what each reached, what the claims come to, and what survived.

    Raises:
        SoftpruneError: the study names no variants, or a claim of others.
    """
    claims = claims_of(bench)
    bench.make(specs_of(bench))  # all at once, whoever makes them
    settings = settings_of(bench)
    found = differences(bench, settings, claims)
    scores = score_lines(bench, settings, "scores", bench.study.title)
    compared = difference_lines(bench, settings, found, "differences", "Differences")
    sizes = size_lines(bench, settings, "sizes")
    theirs = published_intervals(bench.study.published, bench.options)
    tables = (scores, compared, *(table for table in (sizes, theirs.table) if table is not None))
    figure = bars(scores, "scores", bench.study.title, bench.tasks)
    return Findings(tables, (figure,), (*sentences(bench, settings, found), *theirs.sentences))
