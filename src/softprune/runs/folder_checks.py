"""What a folder must be for a run to begin or to go on in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from softprune.errors import SoftpruneError
from softprune.runs.lock import LOCK

JSON: TypeAlias = Any  # null, a truth value, a number, a text, a list or a mapping of these

_ABSENT = "(absent)"
_NOTHING = (None, _ABSENT)


def make_folder(path: Path, record: str, what: str) -> list[Path]:
    """Makes a job's folder; returns those of it and its parents that weren't there before, outermost first.

    Args:
        path: where.
        record: name of the record's file, which a folder of this sort has.
        what: its sort, for messages.

    Raises:
        SoftpruneError: it can't be made, or holds something else than a run.
    """
    try:
        new_folders = [folder for folder in (*reversed(path.parents), path) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
    except (FileExistsError, NotADirectoryError) as error:
        found = f"{path} is, or lies under, a regular file"
        raise SoftpruneError("a folder for the run", found, "choose another --out") from error
    except OSError as error:
        do = "choose another --out, or fix its permissions"
        raise SoftpruneError("a folder for the run that can be written", f"{path}: {error.strerror}", do) from error
    # A process killed between its lock and its run.json leaves these and no more: that folder is ours.
    begun = {LOCK, "recipe.yaml", "resolved.yaml"}
    others = {name for name in names if not name.endswith(".tmp")}
    if record not in names and not others <= begun:
        raise SoftpruneError(
            f"a new folder, or the folder of a {what}",
            f"{path} holds {len(names)} other things, such as {min(names)}",
            "choose another --out",
        )
    return new_folders


def read_resolved(path: Path) -> JSON:
    """The keys that a folder was begun with; a SoftpruneError where they can't be read."""
    try:
        return yaml.safe_load((path / "resolved.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        found, do = f"{path}: its resolved.yaml can't be read", "choose another --out, or remove the folder"
        raise SoftpruneError("the folder of a run", found, do) from error


def changed_keys(path: Path, resolved: dict[str, Any], may_change: Collection[str]) -> dict[str, JSON]:
    """The keys among `may_change` that ask for another value, each with the old and the new one; null asks for none.

    Raises:
        SoftpruneError: any other key differs: it is another recipe.
    """
    differ = find_differences(read_resolved(path), resolved)
    fixed = {key: pair for key, pair in differ.items() if key not in may_change}
    if "kind" in fixed:  # then nearly every key differs
        fixed = {"kind": fixed["kind"]}
    if fixed:
        raise SoftpruneError(
            f"the recipe that {path} was begun with",
            describe_differences(fixed),
            f"choose another --out, such as --out {find_free_path(path)}, or go back to that recipe",
        )
    return {key: [None if old == _ABSENT else old, new] for key, (old, new) in differ.items() if new not in _NOTHING}


def find_differences(there: JSON, now: JSON) -> dict[str, tuple[JSON, JSON]]:
    """The dotted keys of two mappings whose values differ, each with both values."""
    old, new = _flat(there), _flat(now)
    pairs = {key: (old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in {**old, **new}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def describe_differences(differ: Mapping[str, tuple[JSON, JSON]]) -> str:
    """The values that `find_differences` found, in words."""
    parts = []
    for key, pair in differ.items():
        old, new = ("none" if value is None else value for value in pair)
        parts.append(f"{key}: {old} there, {new} now")
    return "; ".join(parts)


def find_free_path(path: Path) -> Path:
    """The path with the first number from 2 behind it at which nothing exists."""
    return next(free for n in count(2) if not (free := path.with_name(f"{path.name}-{n}")).exists())


def _flat(value: JSON, prefix: str = "") -> dict[str, JSON]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, JSON] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
