"""The words that were kept, one text a row, as CSV: the form in which studies of pruned tokens publish them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from softprune.runs import atomic_io
from softprune.token_pruning.analysis.words import Word
from softprune.token_pruning.token_trace import TokenTrace

HEADER = ("text", "kept_text", "label", "predicted", "pos", "layers")


def write_csv(path: Path, rows: Iterable[tuple[TokenTrace, Sequence[Word]]], labels: Sequence[str]) -> None:
    """Write text, kept words, true and predicted class, tags of the kept words, and the layer of every word.

    Tags are separated by spaces, one for each kept word; none without a tagger. Layers are JSON, `[[word, layer], ...]`
    of all words read; a word that was kept to the end has the number of layers there.
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
