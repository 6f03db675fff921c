"""A run folder as frozen values. A file or field that isn't there is None: not measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load_file

from softprune.data.metrics import ExactMatch
from softprune.errors import SoftpruneError
from softprune.runs.record import RunRecord, read_record
from softprune.runs.record_parts import ResultRow
from softprune.statistics.bootstrap import Floats
from softprune.types import Candidate

Bools = npt.NDArray[np.bool_]
T = TypeVar("T")

RESULTS = ("constant", "zero_shot", "instruction", "document", "tuned", "adapted", "control", "random", "winner")
"""Keys of run.json's `results`, in the table's order."""


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation during training; a line of metrics.jsonl."""

    phase: str
    candidate: str
    step: int
    train_loss: float | None = None
    select_loss: float | None = None
    select: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one prompt answered to one example of `report`."""

    id: str
    index: int
    text: str
    answers: tuple[str, ...] = ()  # what there was to choose; none where a text was written
    gold: int = -1  # its place in them
    predicted: int = -1
    written: str | None = None
    reference: str | None = None  # the example's own text
    rougeL: float | None = None  # what the two texts share
    # What counts of either, None where nothing was found in it, and whether these agree; only where that is the metric.
    extracted: str | None = None
    expected: str | None = None
    right: bool | None = None
    group: str | None = None  # what it is resampled with, such as its passage


@dataclass(frozen=True, slots=True)
class ImportanceScores:
    """importance.safetensors: of the unpruned prompt, and of the winner's token-pruned one (0 where pruned)."""

    token_P: Floats | None = None
    piece_PS: Floats | None = None
    winner_piece_PS: Floats | None = None


@dataclass(frozen=True, slots=True)
class TicketMask:
    """What a ticket or a candidate keeps."""

    token_P: Bools
    piece_PS: Bools


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that the report shows: a run folder's files by what is in them."""

    path: Path
    record: RunRecord
    results: Mapping[str, ResultRow | None]  # the record's rows by each of `RESULTS`
    points: tuple[Point, ...]
    candidates: tuple[Candidate, ...]
    importance: ImportanceScores
    ticket: TicketMask | None
    predictions: Mapping[str, tuple[Prediction, ...]]  # by prompt; a prompt without a file is missing
    # By prompt, the answers of its retraining on each fresh seed, without texts; empty in older runs.
    fresh: Mapping[str, tuple[tuple[Prediction, ...], ...]]
    recipe_text: str | None  # resolved.yaml
    masks: tuple[TicketMask, ...] | None = None  # of each candidate; older runs kept none
    neighbours: Mapping[str, Any] | None = None  # neighbours.json, as `softprune.interpret` writes it

    @property
    def prunes(self) -> bool:
        """Whether it is a run that makes a ticket of a prompt."""
        return self.record.kind not in ("tune", "adapt")

    @property
    def is_generation(self) -> bool:
        """Whether texts were written, and not answers chosen; choices on `select` then went by minus the loss."""
        return self.record.task.targets == "text"

    @property
    def title(self) -> str:
        """The task's title, else what else there is to call it by."""
        return self.record.task.title or self.record.task.id or self.path.name

    @property
    def metric(self) -> str:
        """The task's metric; "score" where the run doesn't say."""
        return self.record.task.metric or "score"

    @property
    def is_exact(self) -> bool:
        """Whether the texts that were written are right or wrong, by an answer in them."""
        return self.record.task.metric == ExactMatch.name

    @property
    def select_name(self) -> str:
        """What `select` of a candidate is, as tables write it."""
        return "loss on select" if self.is_generation else "select (%)"

    @property
    def smallest_first(self) -> list[Candidate]:
        """The candidates by size."""
        return sorted(self.candidates, key=lambda candidate: (candidate.parameters, candidate.id))

    @property
    def best_by(self) -> str:
        """What chose each prompt's checkpoint on `select`: `score` or `loss`."""
        return str(self.recipe_part("tuning").get("best_by") or "score")

    def recipe_part(self, key: str) -> Mapping[str, Any]:
        """A mapping inside resolved.yaml; empty where there is none, or it can't be read."""
        try:
            document = yaml.safe_load(self.recipe_text or "")
        except yaml.YAMLError:
            return {}
        value = document.get(key) if isinstance(document, dict) else None
        return value if isinstance(value, dict) else {}


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        SoftpruneError: when it is none, or one of its files can't be read.
    """
    record = read_record(folder, RunRecord)
    candidates = tuple(_read_lines(folder / "candidates.jsonl", _parse_candidate))
    masks = _read_optional(folder / "masks.safetensors", _load_masks)
    predictions, fresh = {}, {}
    for name in RESULTS[1:]:  # the constant answer has no file
        path = folder / "predictions" / f"{name}.jsonl"
        if path.is_file():
            predictions[name] = tuple(_read_lines(path, _parse_prediction))
        seeds = len(list((path.parent / "fresh").glob(f"{name}-*.jsonl")))
        files = [path.parent / "fresh" / f"{name}-{seed}.jsonl" for seed in range(seeds)]
        fresh[name] = tuple(tuple(_read_lines(each, _parse_prediction)) for each in files)
    return Run(
        path=folder,
        record=record,
        results={name: record.results.get(name) for name in RESULTS},
        points=tuple(_read_lines(folder / "metrics.jsonl", lambda line: _build(Point, line))),
        candidates=candidates,
        importance=_read_optional(folder / "importance.safetensors", _load_importance) or ImportanceScores(),
        ticket=_read_optional(folder / "ticket" / "ticket.json", _load_ticket),
        predictions=predictions,
        fresh=fresh,
        recipe_text=_read_optional(folder / "resolved.yaml", lambda path: path.read_text(encoding="utf-8")),
        # A run that was killed between its two files has masks of other candidates than it lists.
        masks=masks if masks is not None and len(masks) == len(candidates) else None,
        neighbours=_read_optional(folder / "neighbours.json", _load_neighbours),
    )


def _read_optional(path: Path, read: Callable[[Path], T]) -> T | None:
    """A file; None where there is none."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        raise SoftpruneError(
            "a file as softprune wrote it",
            f"{path}: {type(error).__name__}: {error}",
            "fix it from a copy, or run the recipe into a new folder",
        ) from error


def _read_lines(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> list[T]:
    """The lines of a JSONL file; a torn last line, as a killed run leaves it, doesn't count."""

    def read(path: Path) -> list[T]:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        return [parse(json.loads(line)) for line in whole.split("\n") if line.strip()]

    return _read_optional(path, read) or []


def _build(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from the fields that it knows; files of later versions may hold more."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})


def _parse_candidate(line: Mapping[str, Any]) -> Candidate:
    interval = line.get("interval")
    if interval is not None:
        low, high = interval
        # NaN is written as null: an interval without an end is not known.
        interval = None if low is None or high is None else (float(low), float(high))
    return _build(Candidate, {**line, "interval": interval})


def _parse_prediction(line: Mapping[str, Any]) -> Prediction:
    answers = tuple(str(answer) for answer in line.get("answers", ()))
    return _build(Prediction, {"text": "", **line, "answers": answers})


def _load_importance(path: Path) -> ImportanceScores:
    tensors = load_file(path)
    scores: dict[str, Floats] = {}
    for name in ("token_P", "piece_PS", "winner_piece_PS"):
        values = tensors.get(name, np.array(np.nan))  # what isn't there is as what isn't finite: not measured
        if values.dtype.kind not in "fiu":
            raise ValueError(f"an array of {values.dtype} in {name}, not of numbers")
        if np.isfinite(values).all():
            scores[name] = values.astype(np.float64)
    return ImportanceScores(**scores)


def _load_masks(path: Path) -> tuple[TicketMask, ...]:
    tensors = load_file(path)
    return tuple(_make_mask(*pair) for pair in zip(tensors["token_CP"], tensors["piece_CPS"], strict=True))


def _load_ticket(path: Path) -> TicketMask:
    document = _load_object(path)
    return _make_mask(document["token_mask"], document["piece_mask"])


def _make_mask(token_P: npt.ArrayLike, piece_PS: npt.ArrayLike) -> TicketMask:
    mask = TicketMask(np.asarray(token_P, dtype=bool), np.asarray(piece_PS, dtype=bool))
    if mask.piece_PS.ndim != 2 or mask.token_P.shape != mask.piece_PS.shape[:1]:
        raise ValueError(f"masks of shape {mask.token_P.shape} and {mask.piece_PS.shape}")
    return mask


def _load_neighbours(path: Path) -> dict[str, Any]:
    document = _load_object(path)
    for tokens in (document.get("prompts") or {}).values():
        if not all(isinstance(entry, dict) for entry in tokens):
            raise TypeError("no tokens by prompt")
    return document


def _load_object(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise TypeError("not a JSON object")
    return document
