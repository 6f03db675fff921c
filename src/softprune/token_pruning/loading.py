"""An encoder with a classification head, by name: what it is before its weights load, and the model itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from softprune.errors import SoftpruneError
from softprune.models.description import BackboneDescription, find_modules, find_source
from softprune.models.load_errors import check_weights, quiet, read_tokenizer, reading_model
from softprune.token_pruning.families import check_type, most_positions

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
