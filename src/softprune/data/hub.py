"""Data sets of the Hugging Face hub, through `datasets`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from softprune.data.definition import HubSource
from softprune.data.row_files import Located, plain_row
from softprune.data.sources import SplitRows
from softprune.errors import SoftpruneError, out_of_memory

PARQUET_BRANCH = "refs/convert/parquet"
"""The hub's own conversion of data sets that are still scripts, which `datasets` 4 no longer runs."""
PATIENCE = 3.0
"""Seconds that a command which only looks waits for the hub."""


def hub_rows(source: HubSource, *, patient: bool = True) -> SplitRows:
    """The rows of every split of a data set on the hub.

    Args:
        source: the data set.
        patient: wait for a hub that doesn't answer as long as its client does, half a minute or more; else only
            a few seconds, and then read what is in the cache.

    Raises:
        SoftpruneError: when `datasets` isn't installed, the hub can't be reached, or a split isn't there.
    """
    silence = None if patient else _silence(source.repository)
    try:
        loaded = _load_dataset(source.repository, source.config)
    except SoftpruneError as error:
        if silence is None:
            raise
        found = f"the hub doesn't answer ({silence}), and nothing is in the cache"
        raise SoftpruneError(error.expected, found, error.do) from None
    for name in source.splits.values():
        if name not in loaded:
            expected = f"a split {name} of {source.repository}"
            raise SoftpruneError(expected, ", ".join(loaded), "correct `splits` in the task YAML")
    return {split: _located(loaded[name], f"{source.repository} {name}") for split, name in source.splits.items()}


def _located(rows: Iterable[Any], where: str) -> Iterator[Located]:
    for number, row in enumerate(rows):
        yield Located(plain_row(row), f"{where}, row {number}")


def _silence(repository: str) -> str | None:
    """Why the hub doesn't answer within `PATIENCE`, None where it does; if it doesn't, it isn't asked again."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return None
    try:
        huggingface_hub.HfApi().dataset_info(repository, timeout=PATIENCE)
    except HfHubHTTPError:
        return None  # an answer, if not the one hoped for
    except Exception as error:  # the client's transport raises errors of its own libraries
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        return type(error).__name__
    return None


def _load_dataset(repository: str, config: str | None) -> Any:
    try:
        import datasets
    except ImportError:
        raise SoftpruneError(
            "the library datasets, to load from the hub",
            "it is not installed",
            "pip install softprune[hub], or pass --data FOLDER",
        ) from None
    name = repository if config is None else f"{repository} ({config})"
    try:
        try:
            return datasets.load_dataset(repository, config)
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            return datasets.load_dataset(repository, config, revision=PARQUET_BRANCH)
    except Exception as error:  # the hub's client raises errors of many libraries
        if out_of_memory(error):
            raise
        found = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise SoftpruneError(
            f"the data set {name} from the Hugging Face hub",
            found[:200],
            "pass --data FOLDER with the task's files, or check the network",
        ) from None
