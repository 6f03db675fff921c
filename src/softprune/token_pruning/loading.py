"""The folder of a pruned model: a transformers classifier with its tokenizer, and `tokens.json` beside its weights."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from softprune.errors import SoftpruneError
from softprune.models.description import BackboneDescription, find_modules, find_source
from softprune.models.load_errors import check_weights, quiet, read_tokenizer, reading_model
from softprune.runs import atomic_io
from softprune.runs.record import RunRecord, read_record
from softprune.token_pruning.families import check_type, most_positions
from softprune.token_pruning.rules import Convention, KeepAll, Order, Ranked, Rule, Thresholds

DOCUMENT = "tokens.json"
_SURROGATE = re.compile("[\ud800-\udfff]")


def describe_encoder(name: str, revision: str | None = None) -> BackboneDescription:
    """Read the configuration of an encoder whose tokens can be pruned; its family is transformers' model type."""
    source = find_source(name)
    with reading_model(name, Path(source), "modules.json"):
        _, subfolder = find_modules(source, revision)
    options = {"subfolder": subfolder, "revision": revision}
    with reading_model(name, Path(source) / subfolder, "config.json"):
        config = import_module("transformers").AutoConfig.from_pretrained(source, **options)
        check_type(config)
        check_weights(name, Path(source) / subfolder)
        kind, hidden, positions = str(config.model_type), int(config.hidden_size), most_positions(config)
        return BackboneDescription(name, source, options, kind, config, hidden, positions, notes=())


def check_length(described: BackboneDescription, max_length: int) -> None:
    """Refuse an input length of more tokens than the model has positions."""
    most = most_positions(described.config)
    if max_length > most:
        expected = f"task.max_length of at most {most}, the positions of {described.name}"
        raise SoftpruneError(expected, str(max_length), f"set task.max_length={most} (--max-length {most})")


def check_head(described: BackboneDescription) -> None:
    """Refuse a checkpoint whose head doesn't choose one of several classes for a text: its outputs have no softmax."""
    config, found = described.config, ""
    problem, heads = config.problem_type, config.architectures or []
    if heads and not any(head.endswith("ForSequenceClassification") for head in heads):
        found = f"{', '.join(heads)}, which has no such head"
    elif problem == "regression" or config.num_labels == 1:
        found = "a regression head, whose output is a number"
    elif problem not in (None, "single_label_classification"):
        found = f"problem_type: {problem}"
    if found:
        expected = f"a head in {described.name} that chooses one of several classes for a text"
        do = "choose such a classifier, or train one on a task: softprune tokens train --backbone MODEL --task TASK"
        raise SoftpruneError(expected, found, do)


def load_tokenizer(described: BackboneDescription) -> Any:
    """Load the tokenizer; a slow one is refused, since it doesn't know where in a text its tokens are."""
    with reading_model(described.name, described.folder, "its tokenizer"):
        tokenizer = read_tokenizer(described.source, **described.options)
    if not tokenizer.is_fast:
        raise SoftpruneError(
            "a fast tokenizer, which knows where in a text its tokens are",
            f"a slow one in {described.name}",
            "save the model with a tokenizer.json",
        )
    return tokenizer


def replace_surrogates(texts: Iterable[str]) -> list[str]:
    """Texts as a tokenizer accepts them: a surrogate without its pair, which JSON can hold, becomes U+FFFD."""
    return [_SURROGATE.sub("\ufffd", text) for text in texts]


def load_classifier(
    described: BackboneDescription, labels: tuple[str, ...], device: torch.device, dtype: torch.dtype, seed: int
) -> Any:
    """The model with a head for the labels; one that the checkpoint lacks is drawn, seeded."""
    torch.manual_seed(seed)
    with reading_model(described.name, described.folder, "its weights", str(device)), quiet():
        model = import_module("transformers").AutoModelForSequenceClassification.from_pretrained(
            described.source,
            **described.options,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            problem_type="single_label_classification",  # the base's own may be another
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
        )
        return model.to(device)


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
