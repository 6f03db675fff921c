"""What a folder must be for a run to begin or to go on in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from softprune.config.yaml_io import yaml_text
from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.runs.lock import LOCK

JSON: TypeAlias = Any  # null, a truth value, a number, a text, a list or a mapping of these

_ABSENT = "(absent)"
_NOTHING = (None, _ABSENT)


def make_folder(path: Path, record: str, what: str) -> list[Path]:
    """Makes the folder; those of it and its parents that weren't there before, outermost first.

    Args:
        path: where.
        record: the file that tells a folder of this sort.
        what: its sort, for messages.

    Raises:
        SoftpruneError: it can't be made, or holds something else than a run.
    """
    try:
        made = [folder for folder in (*reversed(path.parents), path) if not folder.exists()]
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
    return made


def write_recipe(path: Path, recipe_text: str, resolved: dict[str, Any]) -> None:
    """Writes the recipe as the user wrote it, and with every key."""
    atomic_io.write_bytes(path / "recipe.yaml", recipe_text.encode())
    write_resolved(path, resolved)


def write_resolved(path: Path, resolved: dict[str, Any]) -> None:
    """Writes every recipe key with its value."""
    atomic_io.write_bytes(path / "resolved.yaml", yaml_text(resolved).encode())


def read_resolved(path: Path) -> JSON:
    """The keys that a folder was begun with.

    Raises:
        SoftpruneError: they can't be read.
    """
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
    differ = differing(read_resolved(path), resolved)
    fixed = {key: pair for key, pair in differ.items() if key not in may_change}
    if "kind" in fixed:  # then nearly every key differs
        fixed = {"kind": fixed["kind"]}
    if fixed:
        raise SoftpruneError(
            f"the recipe that {path} was begun with",
            told_apart(fixed),
            f"choose another --out, such as --out {free_beside(path)}, or go back to that recipe",
        )
    return {key: [None if old == _ABSENT else old, new] for key, (old, new) in differ.items() if new not in _NOTHING}


def differing(there: JSON, now: JSON) -> dict[str, tuple[JSON, JSON]]:
    """The dotted keys of two mappings whose values differ, each with both values."""
    old, new = _flat(there), _flat(now)
    pairs = {key: (old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in {**old, **new}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def told_apart(differ: Mapping[str, tuple[JSON, JSON]]) -> str:
    """What `differing` found, in words."""
    return "; ".join(f"{key}: {_shown(old)} there, {_shown(new)} now" for key, (old, new) in differ.items())


def free_beside(path: Path) -> Path:
    """A path with a number behind it at which nothing is."""
    return next(free for n in count(2) if not (free := path.with_name(f"{path.name}-{n}")).exists())


def _shown(value: JSON) -> JSON:
    """A value as a recipe has it."""
    return "none" if value is None else value


def _flat(value: JSON, prefix: str = "") -> dict[str, JSON]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, JSON] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
