"""A run folder as frozen values. A file or field that isn't there is None: not measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load_file

from softprune.errors import SoftpruneError
from softprune.runs.record import RunRecord, read_record
from softprune.runs.record_parts import ResultRow
from softprune.types import Candidate

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Found = TypeVar("Found")

RESULTS = ("constant", "zero_shot", "instruction", "tuned", "adapted", "control", "random", "winner")
"""Keys of run.json's `results`, in the table's order."""

PREDICTED = RESULTS[1:]


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation during training; a line of metrics.jsonl."""

    phase: str
    candidate: str
    epoch: int
    step: int
    train_loss: float | None = None
    select_loss: float | None = None
    select: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one prompt answered to one example of `report`.

    Attributes:
        id, index, text: of the example.
        group: what it is drawn with, such as its passage.
        answers, gold, predicted: what there was to choose, and places in it; none where a text was written.
        written, reference, rougeL: then, the text, the example's own, and what they share.
    """

    id: str
    index: int
    text: str
    answers: tuple[str, ...] = ()
    gold: int = -1
    predicted: int = -1
    written: str | None = None
    reference: str | None = None
    rougeL: float | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class ImportanceScores:
    """importance.safetensors.

    Attributes:
        token_P, piece_PS: of the unpruned prompt.
        winner_piece_PS: of the winner's token-pruned prompt, zero where a token is pruned.
    """

    token_P: Floats | None
    piece_PS: Floats | None
    winner_piece_PS: Floats | None


@dataclass(frozen=True, slots=True)
class TicketMask:
    """The masks of ticket/ticket.json."""

    token_P: Bools
    piece_PS: Bools


@dataclass(frozen=True, slots=True)
class CandidateMasks:
    """masks.safetensors: what each candidate keeps, in the order of candidates.jsonl; C candidates."""

    token_CP: Bools
    piece_CPS: Bools


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that the report shows.

    Attributes:
        path: the folder.
        record: run.json.
        results: its rows by name; None where not measured.
        points: metrics.jsonl.
        candidates: candidates.jsonl.
        importance, ticket: None where the run made none.
        predictions: per prompt name, its answers; names without a file are missing.
        fresh: per prompt name, the answers of its retraining on each fresh seed, without texts; empty in older runs.
        recipe_text: resolved.yaml.
        masks: None where the run kept none, as earlier versions did, or where they aren't of these candidates.
        neighbours: neighbours.json, as `softprune.interpret` writes it; None where the run has none.
    """

    path: Path
    record: RunRecord
    results: Mapping[str, ResultRow | None]
    points: tuple[Point, ...]
    candidates: tuple[Candidate, ...]
    importance: ImportanceScores | None
    ticket: TicketMask | None
    predictions: Mapping[str, tuple[Prediction, ...]]
    fresh: Mapping[str, tuple[tuple[Prediction, ...], ...]]
    recipe_text: str | None
    masks: CandidateMasks | None = None
    neighbours: Mapping[str, Any] | None = None

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
    candidates = tuple(_read_lines(folder / "candidates.jsonl", _candidate))
    masks = _optional(folder / "masks.safetensors", _masks)
    return Run(
        path=folder,
        record=record,
        results={name: record.results.get(name) for name in RESULTS},
        points=tuple(_read_lines(folder / "metrics.jsonl", lambda line: _made(Point, line))),
        candidates=candidates,
        importance=_optional(folder / "importance.safetensors", _importance),
        ticket=_optional(folder / "ticket" / "ticket.json", _ticket),
        predictions=_predictions(folder / "predictions"),
        fresh=_fresh(folder / "predictions" / "fresh"),
        recipe_text=_optional(folder / "resolved.yaml", lambda path: path.read_text(encoding="utf-8")),
        # A run that was killed between its two files has masks of other candidates than it lists.
        masks=masks if masks is not None and len(masks.token_CP) == len(candidates) else None,
        neighbours=_optional(folder / "neighbours.json", _neighbours),
    )


def _parsed(path: Path, read: Callable[[Path], Found]) -> Found:
    try:
        return read(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        raise SoftpruneError(
            "a file as softprune wrote it",
            f"{path}: {type(error).__name__}: {error}",
            "fix it from a copy, or run the recipe into a new folder",
        ) from error


def _optional(path: Path, read: Callable[[Path], Found]) -> Found | None:
    return _parsed(path, read) if path.is_file() else None


def _object(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise TypeError("not a JSON object")
    return document


def _read_lines(path: Path, make: Callable[[Mapping[str, Any]], Found]) -> list[Found]:
    """The lines of a JSONL file; a torn last line, as a killed run leaves it, doesn't count."""

    def read(path: Path) -> list[Found]:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        return [make(json.loads(line)) for line in whole.split("\n") if line.strip()]

    return _optional(path, read) or []


def _made(kind: type[Found], values: Mapping[str, Any]) -> Found:
    """A dataclass from the fields that it knows; files of later versions may hold more."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})


def _pair(values: Sequence[float] | None) -> tuple[float, float] | None:
    """An interval, or None where it or an end of it isn't known."""
    if values is None or any(value is None for value in values):
        return None
    low, high = values
    return (float(low), float(high))


def _candidate(line: Mapping[str, Any]) -> Candidate:
    return _made(Candidate, {**line, "interval": _pair(line.get("interval"))})


def _importance(path: Path) -> ImportanceScores:
    tensors = load_file(path)

    def of(name: str) -> Floats | None:
        if name in tensors and tensors[name].dtype.kind not in "fiu":
            raise ValueError(f"an array of {tensors[name].dtype} in {name}, not of numbers")
        return tensors[name].astype(np.float64) if name in tensors and np.isfinite(tensors[name]).all() else None

    return ImportanceScores(of("token_P"), of("piece_PS"), of("winner_piece_PS"))


def _masks(path: Path) -> CandidateMasks:
    tensors = load_file(path)
    token_CP, piece_CPS = (np.asarray(tensors[name], dtype=bool) for name in ("token_CP", "piece_CPS"))
    if piece_CPS.ndim != 3 or token_CP.shape != piece_CPS.shape[:2]:
        raise ValueError(f"masks of shape {token_CP.shape} and {piece_CPS.shape}")
    return CandidateMasks(token_CP, piece_CPS)


def _neighbours(path: Path) -> dict[str, Any]:
    document = _object(path)
    prompts = document.get("prompts") or {}
    if any(not isinstance(entry, dict) for tokens in prompts.values() for entry in tokens):
        raise TypeError("no tokens by prompt")
    return document


def _ticket(path: Path) -> TicketMask:
    document = _object(path)
    token_P, piece_PS = (np.asarray(document[name], dtype=bool) for name in ("token_mask", "piece_mask"))
    if token_P.ndim != 1 or piece_PS.ndim != 2 or len(token_P) != len(piece_PS):
        raise ValueError(f"masks of shape {token_P.shape} and {piece_PS.shape}")
    return TicketMask(token_P, piece_PS)


def _predictions(folder: Path) -> dict[str, tuple[Prediction, ...]]:
    found = {}
    for name in PREDICTED:
        path = folder / f"{name}.jsonl"
        if path.is_file():
            found[name] = tuple(_read_lines(path, _prediction))
    return found


def _fresh(folder: Path) -> dict[str, tuple[tuple[Prediction, ...], ...]]:
    found: dict[str, tuple[tuple[Prediction, ...], ...]] = {}
    for name in PREDICTED:
        seeds = len(list(folder.glob(f"{name}-*.jsonl")))
        files = [folder / f"{name}-{seed}.jsonl" for seed in range(seeds)]
        found[name] = tuple(tuple(_read_lines(path, _prediction)) for path in files)
    return found


def _prediction(line: Mapping[str, Any]) -> Prediction:
    answers = tuple(str(answer) for answer in line.get("answers", ()))
    return _made(Prediction, {"text": "", **line, "answers": answers})
