"""What a pruned model keeps, from one call: numbers, the kept words as CSV, figures and a page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from softprune.runs import atomic_io
from softprune.statistics.bootstrap import RESAMPLES
from softprune.token_pruning.analysis.findings import all_findings
from softprune.token_pruning.analysis.keywords import read_keywords
from softprune.token_pruning.analysis.measure import measure
from softprune.token_pruning.analysis.page import write_page
from softprune.token_pruning.analysis.words import Tagger, Word
from softprune.token_pruning.model import TokenModel, TokenTrace

HEADER = ("text", "kept_text", "label", "predicted", "pos", "layers")


def analyse(
    traces: Sequence[TokenTrace],
    tagger: Tagger | None,
    out: Path | str,
    *,
    labels: Sequence[str] | None = None,
    keywords: Sequence[str] | str | Path | None = None,
    model: TokenModel | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    title: str = "",
) -> dict[str, Any]:
    """Analyse what was kept, and write `analysis.json`, `kept.csv`, `figures/` and `analysis.html` into a folder.

    Args:
        traces: of the texts; without states there is no map.
        tagger: None splits words at spaces and punctuation, and there are no parts of speech.
        labels: names of the classes; the model's by default.
        keywords: the user's own words, as a list or a file with one a line.
        model: that made the traces; it reads texts with keywords again, without them.

    Returns:
        What `analysis.json` holds. Shares are fractions.
    """
    words = None if keywords is None else read_keywords(keywords)  # before minutes of work
    analysis = measure(traces, tagger, labels, words, model, seed=seed, resamples=resamples)
    folder = Path(out)
    contents = {"schema": 1, **analysis.as_json(), "findings": all_findings(analysis)}
    write_csv(folder / "kept.csv", zip(analysis.table.traces, analysis.table.words, strict=True), analysis.labels)
    write_page(analysis, folder, title)
    text = atomic_io.json_text(contents, indent=1) + "\n"
    atomic_io.write_bytes(folder / "analysis.json", text.encode(errors="replace"))
    return contents


def write_csv(path: Path, rows: Iterable[tuple[TokenTrace, Sequence[Word]]], labels: Sequence[str]) -> None:
    """Write the kept words, one text a row: the form in which studies of pruned tokens publish them.

    `pos` has a tag for each kept word (none without a tagger); `layers` is JSON, `[[word, layer], ...]` of all words
    read, with the number of layers for a word that was kept to the end.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(HEADER)
    for trace, words in rows:
        kept = [word for word in words if word.left == trace.layers]
        writer.writerow(
            (
                trace.text,
                " ".join(word.text for word in kept),
                "" if trace.gold is None else labels[trace.gold],
                labels[trace.predicted],
                " ".join(word.mark.pos for word in kept).strip(),
                json.dumps([[word.text, word.left] for word in words], ensure_ascii=False),
            )
        )
    # "replace": half a surrogate pair, which JSON data may hold, has no UTF-8.
    atomic_io.write_bytes(path, buffer.getvalue().encode("utf-8", errors="replace"))
