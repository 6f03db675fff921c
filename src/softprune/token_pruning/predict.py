"""Rows of a file classified by a pruned model, in their order, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from softprune.config.registry import unknown
from softprune.data.row_files import Located, Row
from softprune.errors import SoftpruneError
from softprune.token_pruning.model import TokenModel, TokenTrace
from softprune.training.loop import check_finite

CHUNK = 2_048
"""Rows that are read, sorted by length and classified together."""
ADDED = ("prediction", "probability", "tokens", "kept")
ADDED_WIDE = (*ADDED, "probabilities", "kept_words")
_FIRST = ("text", "sentence", "content", "review")
"""Columns that may hold the text where none is named."""


@dataclass(frozen=True, slots=True)
class TokenPrediction:
    """What a model predicted for a row."""

    row: Row  # as it was read
    labels: tuple[str, ...]  # names of the classes
    trace: TokenTrace

    @property
    def kept(self) -> int:
        """Number of tokens that the last layer read, special ones too."""
        return self.trace.alive()[-1]

    def filled_row(self, *, wide: bool) -> dict[str, Any]:
        """The row with its prediction; `wide` adds the columns that only JSON lines hold well."""
        trace = self.trace
        added: dict[str, Any] = {
            "prediction": self.labels[trace.predicted],
            "probability": trace.probabilities[trace.predicted],
            "tokens": len(trace.left),
            "kept": self.kept,
        }
        if wide:
            added["probabilities"] = dict(zip(self.labels, trace.probabilities, strict=True))
            words = []
            for (begin, end), left, special in zip(trace.offsets, trace.left, trace.special, strict=True):
                if left >= trace.layers and not special:
                    words.append(trace.text[begin:end])
            added["kept_words"] = words
        return {**self.row, **added}


def predict_rows(model: TokenModel, rows: Iterable[Located], column: str | None = None) -> Iterator[TokenPrediction]:
    """Classify rows in their order, read as they are needed; a row without a text is refused.

    `column` holds the text; None for `text` or the like, or the only column.
    """
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        if column is None:
            column = _choose_column(chunk[0])
        texts = [_read_text(located, column) for located in chunk]
        for located, trace in zip(chunk, model.trace(texts, where=[each.where for each in chunk]), strict=True):
            do = "the model overflows in this dtype: use --dtype float32, or another model"
            check_finite(trace.probabilities[:1], [located.where], "probability", "", do)  # softmax: one NaN is all
            yield TokenPrediction(located.row, model.labels, trace)


def _choose_column(first: Located) -> str:
    """The column that holds the text, by the first row."""
    names = [name for name in _FIRST if name in first.row] or list(first.row)
    if len(names) == 1 or names[:1] == ["text"]:
        return names[0]
    raise SoftpruneError("the column of the text", f"{', '.join(names)} in {first.where}", f"add --text {names[0]}")


def _read_text(located: Located, column: str) -> str:
    row, where = located.row, located.where
    if column not in row:
        do = unknown("column", column, row).do
        raise SoftpruneError(f'a column "{column}" in {where}', f"its columns are {', '.join(row)}", do)
    text = row[column]
    if not isinstance(text, str) or not text.strip():
        found = f"{text!r:.40} in {where}"
        raise SoftpruneError(f"text in {column}", found, "fix that row, or leave it out")
    return text
