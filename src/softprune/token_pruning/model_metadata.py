"""`tokens.json`: what is saved beside a pruned model's weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.runs.record import RunRecord, read_record
from softprune.token_pruning.rules import Convention, KeepAll, Order, Ranked, Rule, Thresholds

DOCUMENT = "tokens.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class ThresholdsData(_Part):
    """`rules.Thresholds`."""

    kind: Literal["thresholds"] = "thresholds"
    theta_final: FiniteFloat
    temperature: FiniteFloat = Field(gt=0)
    delta: list[FiniteFloat]


class RankedData(_Part):
    """`rules.Ranked`, all fields."""

    kind: Literal["ranked"] = "ranked"
    layers: int
    rate: FiniteFloat
    order: Order
    seed: int
    whole: int | None = None


class KeepAllData(_Part):
    """`rules.KeepAll`."""

    kind: Literal["everything"] = "everything"


class ConventionData(_Part):
    """`rules.Convention`, all fields."""

    divisor: FiniteFloat = Field(gt=0)
    protect: bool


class BaseWeights(_Part):
    """Weights that are stored elsewhere: the model's name, and the fingerprint of its weights."""

    base: str
    fingerprint: str


class Document(_Part):
    """What tokens.json holds."""

    schema_: Literal[1] = Field(1, alias="schema", description="version of this layout")
    base: str = Field(description="the model that it was made of")
    weights: BaseWeights | None = Field(description="where the weights are; None for this very folder")
    max_length: int = Field(description="longest text in tokens")
    convention: ConventionData
    rule: Annotated[ThresholdsData | RankedData | KeepAllData, Field(discriminator="kind")]


def write_document(
    folder: Path, base: str, weights: BaseWeights | None, max_length: int, convention: Convention, rule: Rule
) -> None:
    """Write tokens.json; arguments as of `Document`."""
    data: ThresholdsData | RankedData | KeepAllData = KeepAllData()
    if isinstance(rule, Thresholds):
        data = ThresholdsData(theta_final=rule.theta_final, temperature=rule.temperature, delta=rule.delta_L.tolist())
    elif isinstance(rule, Ranked):
        data = RankedData(**asdict(rule))
    counted = ConventionData(**asdict(convention))
    document = Document(schema=1, base=base, weights=weights, max_length=max_length, convention=counted, rule=data)
    text = atomic_io.json_text(document.model_dump(by_alias=True), indent=2)
    (folder / DOCUMENT).write_text(text + "\n", encoding="utf-8")


def read_document(folder: Path) -> Document | None:
    """tokens.json, or None for a model without it; what softprune didn't write is refused."""
    path = folder / DOCUMENT
    if not path.exists():
        return None
    try:
        return Document.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        found = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            found = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        do = "copy the folder again, or save the model again"
        raise SoftpruneError(f"a whole pruned model in {folder}", f"{DOCUMENT}: {found}", do) from error


def make_rule(document: Document, layers: int) -> tuple[Rule, Convention]:
    """The rule of a model with that many layers, and how it counts importance."""
    data, convention = document.rule, Convention(**document.convention.model_dump())
    if isinstance(data, KeepAllData):
        return KeepAll(), convention
    found = len(data.delta) if isinstance(data, ThresholdsData) else data.layers
    if found != layers:
        do = "bring tokens.json and weights together again"
        raise SoftpruneError(f"a rule for the model's {layers} layers", f"one for {found} in {DOCUMENT}", do)
    if isinstance(data, RankedData):
        return Ranked(**data.model_dump(exclude={"kind"})), convention
    rule = Thresholds(layers, data.theta_final, data.temperature, convention)
    rule.delta_L.data = torch.tensor(data.delta, dtype=torch.float32)
    rule.delta_L.requires_grad_(False)
    return rule, convention


def model_folder(path: str | Path) -> str:
    """The folder of a model: for a run, that of its chosen model; anything else (a hub name, too) as it is."""
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
