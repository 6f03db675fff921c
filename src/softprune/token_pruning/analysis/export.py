"""The words that were kept, one text a row, as CSV: the form in which studies of pruned tokens publish them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from softprune.runs.atomic_io import temporary_for
from softprune.token_pruning.analysis.words import Word
from softprune.token_pruning.token_trace import TokenReading

HEADER = ("text", "kept_text", "label", "predicted", "pos", "layers")


def csv_row(reading: TokenReading, words: Sequence[Word], labels: Sequence[str]) -> tuple[str, ...]:
    """One text as text, kept words, true and predicted class, tags of the kept words, and every word's layer.

    The last is JSON, `[[word, layer], ...]` of all words read; a word that was kept to the end has the number of
    layers there. Tags are apart by a space, one a kept word; empty without a tagger.
    """
    kept = [word for word in words if word.left == reading.layers]
    return (
        reading.text,
        " ".join(word.text for word in kept),
        "" if reading.gold is None else labels[reading.gold],
        labels[reading.predicted],
        " ".join(word.mark.pos for word in kept).strip(),
        json.dumps([[word.text, word.left] for word in words], ensure_ascii=False),
    )


def write_csv(path: Path, rows: Iterable[tuple[TokenReading, Sequence[Word]]], labels: Sequence[str]) -> int:
    """Write texts as they come, row by row; the file is there whole or not at all.

    Returns:
        How many texts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, count = temporary_for(path), 0
    try:
        # "replace": half a surrogate pair, which JSON data may hold, has no UTF-8.
        with temporary.open("w", encoding="utf-8", errors="replace", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            for reading, words in rows:
                writer.writerow(csv_row(reading, words, labels))
                count += 1
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return count


def csv_text(rows: Iterable[tuple[TokenReading, Sequence[Word]]], labels: Sequence[str]) -> Iterator[str]:
    """The same, a line at a time, for a stream such as standard output."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(HEADER)
    for reading, words in rows:
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(csv_row(reading, words, labels))
    yield buffer.getvalue()
