"""What a pruned model keeps, from one call: numbers, the kept words as CSV, figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softprune.runs import atomic_io
from softprune.statistics.bootstrap import RESAMPLES
from softprune.token_pruning.analysis.export import write_csv
from softprune.token_pruning.analysis.findings import all_findings
from softprune.token_pruning.analysis.keywords import read_keywords
from softprune.token_pruning.analysis.measure import measure
from softprune.token_pruning.analysis.page import write_page
from softprune.token_pruning.analysis.tagging import Tagger
from softprune.token_pruning.token_trace import TokenTrace, TraceableModel

SCHEMA = 1


def analyse(
    traces: Sequence[TokenTrace],
    tagger: Tagger | None,
    out: Path | str,
    *,
    labels: Sequence[str] | None = None,
    keywords: Sequence[str] | str | Path | None = None,
    model: TraceableModel | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    title: str = "",
) -> dict[str, Any]:
    """Analyse what was kept, and write `analysis.json`, `kept.csv`, `figures/` and `analysis.html` into a folder.

    Args:
        traces: of the texts; without states there is no map.
        tagger: None splits words at spaces and punctuation, and there are no parts of speech.
        out: the folder; its files are replaced.
        labels: names of the classes; the model's by default.
        keywords: the user's own words, as a list or a file with one a line.
        model: that made the traces; it reads texts with keywords again, without them.
        seed: of everything random.
        resamples: of every bootstrap.
        title: of the page.

    Returns:
        What `analysis.json` holds. Shares are fractions.

    Raises:
        SoftpruneError: without texts or words, for keywords that can't be read, and without matplotlib, jinja2
            or (for the map) scikit-learn.
    """
    words = None if keywords is None else read_keywords(keywords)  # before minutes of work
    analysis = measure(traces, tagger, labels, words, model, seed=seed, resamples=resamples)
    folder = Path(out)
    contents = {"schema": SCHEMA, **analysis.as_json(), "findings": all_findings(analysis)}
    write_csv(folder / "kept.csv", zip(analysis.table.traces, analysis.table.words, strict=True), analysis.labels)
    write_page(analysis, folder, title)
    text = atomic_io.json_text(contents, indent=1) + "\n"
    atomic_io.write_bytes(folder / "analysis.json", text.encode(errors="replace"))
    return contents
