"""Settings side by side: the same recipe with other keys, as in the paper's Tables 1, 2, 4, 5, 6 and 8."""

from __future__ import annotations

from softprune.errors import SoftpruneError
from softprune.study.bench import Bench
from softprune.study.findings import Findings
from softprune.study.scores import chances, difference_table, row_of, score_table


def conduct(bench: Bench) -> Findings:
    """A run for every variant, task and seed; the table of what each reached, and of its differences to the first.

    Raises:
        SoftpruneError: the study names no variants.
    """
    variants = bench.study.variants
    if not variants:
        raise SoftpruneError("variants that the study compares", "none", "name them under variants:")
    specs = {v.name: [bench.spec(t, s, v.keys) for t in bench.tasks for s in bench.seeds] for v in variants}
    bench.make([spec for each in specs.values() for spec in each])  # all at once, whoever makes them
    runs = {v.name: bench.grid(v.keys) for v in variants}
    rows = {v.label: row_of(bench, runs[v.name], v.row) for v in variants}
    tuned = next((runs[v.name] for v in variants if v.row != "adapted"), None)
    chance = chances(bench, tuned) if tuned is not None else dict.fromkeys(bench.tasks, False)
    first = variants[0].label
    tables = (
        score_table(bench, "scores", bench.study.title, rows, chance),
        difference_table(bench, "differences", f"Differences to {first}", rows, first, chance),
    )
    return Findings(tables)
