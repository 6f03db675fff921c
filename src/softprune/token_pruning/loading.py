"""An encoder with a classification head, by name: what it is before its weights load, and the model itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from softprune.errors import SoftpruneError
from softprune.models.description import find_modules, find_source
from softprune.models.load_errors import check_weights, read_tokenizer, reading_model
from softprune.token_pruning.families import check_type, most_positions

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class DescribedEncoder:
    """What is known of an encoder before its weights load."""

    name: str  # what the user typed
    source: str  # a local folder, or a hub name
    subfolder: str  # of the encoder's files in it
    revision: str | None  # of a hub model
    config: Any  # transformers' configuration
    positions: int  # tokens of the longest text that it reads


def describe_encoder(name: str, revision: str | None = None) -> DescribedEncoder:
    """Read an encoder's configuration.

    Raises:
        SoftpruneError: it can't be found, or isn't an encoder whose tokens can be pruned.
    """
    source = find_source(name)
    with reading_model(name, Path(source), "modules.json"):
        _, subfolder = find_modules(source, revision)
    with reading_model(name, Path(source) / subfolder, "config.json"):
        read_config = import_module("transformers").AutoConfig.from_pretrained
        config = read_config(source, subfolder=subfolder, revision=revision)
        check_type(config)
        check_weights(name, Path(source) / subfolder)
        return DescribedEncoder(name, source, subfolder, revision, config, most_positions(config))


def check_length(described: DescribedEncoder, max_length: int) -> None:
    """Check an input length against the model's positions.

    Raises:
        SoftpruneError: there are fewer of them.
    """
    if max_length > described.positions:
        raise SoftpruneError(
            f"task.max_length of at most {described.positions}, the positions of {described.name}",
            str(max_length),
            f"set task.max_length={described.positions} (--max-length {described.positions})",
        )


def check_head(described: DescribedEncoder) -> None:
    """Refuse a checkpoint whose head doesn't choose one of several classes for a text: its outputs have no softmax.

    Raises:
        SoftpruneError: several labels a text, a number, or a head for another purpose, or none.
    """
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


def load_tokenizer(described: DescribedEncoder) -> Any:
    """Load the tokenizer.

    Raises:
        SoftpruneError: it can't be read, or is a slow one, which doesn't know where in a text its tokens are.
    """
    with reading_model(described.name, Path(described.source) / described.subfolder, "its tokenizer"):
        tokenizer = read_tokenizer(described.source, subfolder=described.subfolder, revision=described.revision)
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
    described: DescribedEncoder, labels: tuple[str, ...], device: torch.device, dtype: torch.dtype, seed: int
) -> Any:
    """The model with a head for the labels; one that the checkpoint lacks is drawn, seeded.

    Raises:
        SoftpruneError: it can't be read, or doesn't fit in memory.
    """
    torch.manual_seed(seed)
    folder = Path(described.source) / described.subfolder
    with reading_model(described.name, folder, "its weights", str(device)), quiet():
        model = import_module("transformers").AutoModelForSequenceClassification.from_pretrained(
            described.source,
            subfolder=described.subfolder,
            revision=described.revision,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            problem_type="single_label_classification",  # the base's own may be another
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
        )
        return model.to(device)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers, which warns at length that a new classification head must be trained, and draws bars."""
    logging = import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
