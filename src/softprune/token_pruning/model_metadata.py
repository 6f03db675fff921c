"""`tokens.json`: what stands beside a pruned model's weights, written and read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.runs.record import RunRecord, read_record
from softprune.token_pruning.rules import Convention, Everything, Ranked, Rule, Thresholds

DOCUMENT = "tokens.json"
SCHEMA = 1
_ORDERS = ("importance", "random", "first")


@dataclass(frozen=True, slots=True)
class Mark:
    """Weights that lie elsewhere: the model's name, and the fingerprint of its weights."""

    base: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Document:
    """What tokens.json holds.

    Attributes:
        base: the model that it was made of.
        weights: where they are, None for this very folder.
        max_length: tokens of a text at most.
        convention: how importance is counted and who is protected.
        rule: kind and numbers of the rule, as `rule_of` reads them.
    """

    base: str
    weights: Mark | None
    max_length: int
    convention: Convention
    rule: dict[str, Any]


def write_document(folder: Path, document: Document) -> None:
    """Write tokens.json."""
    text = atomic_io.json_text({"schema": SCHEMA, **asdict(document)}, indent=2)
    (folder / DOCUMENT).write_text(text + "\n", encoding="utf-8")


def read_document(folder: Path) -> Document | None:
    """tokens.json, or None for a model without it.

    Raises:
        SoftpruneError: it isn't what softprune wrote.
    """
    path = folder / DOCUMENT
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise ValueError(f"not of schema {SCHEMA}")
        mark = (
            None if found["weights"] is None else Mark(str(found["weights"]["base"]), found["weights"]["fingerprint"])
        )
        convention = Convention(float(found["convention"]["divisor"]), bool(found["convention"]["protect"]))
        if not convention.divisor > 0:
            raise ValueError(f"a divisor of {convention.divisor:g}")
        document = Document(str(found["base"]), mark, int(found["max_length"]), convention, dict(found["rule"]))
        _rule(document)
        return document
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else error
        do = "copy the folder again, or save the model again"
        raise SoftpruneError(f"a whole pruned model in {folder}", f"{DOCUMENT}: {why}", do) from error


def document_of(rule: Rule) -> dict[str, Any]:
    """Kind and numbers of a rule."""
    if isinstance(rule, Thresholds):
        return {
            "kind": "thresholds",
            "theta_final": rule.theta_final,
            "temperature": rule.temperature,
            "delta": rule.delta_L.tolist(),
        }
    if isinstance(rule, Ranked):
        return {"kind": "ranked", **asdict(rule)}
    return {"kind": "everything"}


def rule_of(document: Document, layers: int) -> Rule:
    """The rule of a model with so many layers.

    Raises:
        SoftpruneError: it was made for another number.
    """
    rule = _rule(document)
    if isinstance(rule, Everything):
        return rule
    found = len(rule.delta_L) if isinstance(rule, Thresholds) else rule.layers
    if found != layers:
        do = "bring tokens.json and weights together again"
        raise SoftpruneError(f"a rule for the model's {layers} layers", f"one for {found} in {DOCUMENT}", do)
    return rule


def _rule(document: Document) -> Thresholds | Ranked | Everything:
    """The rule, whatever the number of layers; ValueError, KeyError or TypeError where it isn't one."""
    values, kind = document.rule, document.rule["kind"]
    if kind == "thresholds":
        delta_L = torch.tensor([float(delta) for delta in values["delta"]], dtype=torch.float32)
        if not bool(delta_L.isfinite().all()) or not float(values["temperature"]) > 0:
            raise ValueError("thresholds that are no numbers")
        rule = Thresholds(len(delta_L), float(values["theta_final"]), float(values["temperature"]), document.convention)
        rule.delta_L.data = delta_L
        rule.delta_L.requires_grad_(False)
        return rule
    if kind == "ranked" and values["order"] in _ORDERS:
        whole = None if values.get("whole") is None else int(values["whole"])
        return Ranked(int(values["layers"]), float(values["rate"]), values["order"], int(values["seed"]), whole)
    if kind == "everything":
        return Everything()
    raise ValueError(f"no rule of kind {kind!r}")


def model_folder(path: str | Path) -> str:
    """The folder of a model: of a run, the model that it chose; anything else (a hub name, too) as it is.

    Raises:
        SoftpruneError: the run has no model yet, or is of another kind.
    """
    folder = Path(path)
    if not (folder / RunRecord.FILE).is_file() or (folder / DOCUMENT).exists():
        return str(path)
    record = read_record(folder, RunRecord)
    if record.kind != "tokens":
        found = f"{path}, a run of kind {record.kind}"
        raise SoftpruneError("a model of softprune tokens train", found, f"softprune predict {path}")
    if not record.model:
        found = f"{path}, which is {record.status} and has no model yet"
        raise SoftpruneError("a run with a model", found, f"continue it: {record.command}")
    return str(folder / record.model)
