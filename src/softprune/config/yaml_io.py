"""YAML as softprune reads it, in recipes and in task files."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from softprune.errors import SoftpruneError
from softprune.text_encoding import how_to_convert

_MERGE = "tag:yaml.org,2002:merge"
_SCIENTIFIC = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, in which 1e-5 is a number and a key given twice is an error.

    Raises:
        yaml.YAMLError: it is no YAML, or holds values that can't be read.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("brackets nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # PyYAML lets errors of impossible dates, numbers and explicit tags through.
        raise yaml.YAMLError(f"a value that can't be read ({error})") from None


def read_text(path: Path, what: str) -> str:
    """The text of a file in UTF-8, which a message calls `what`; a SoftpruneError where it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} in {path}"
        raise SoftpruneError(f"a {what} in UTF-8", byte, how_to_convert(error.object, path)) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        why = error.strerror if isinstance(error, OSError) else "no path"
        shown = str(path).replace("\0", "\\0")
        raise SoftpruneError(f"a {what} that can be read", f"{shown}: {why}", "check its path") from error


def parse_keys(text: str, where: str, first: str = "kind: xprompt", page: str = "docs/usage.md") -> dict[str, Any]:
    """The keys of a YAML text, which a message calls `where`; a SoftpruneError where they can't be read.

    It shows what a `first` line could be, and names the page about such texts.
    """
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        found = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise SoftpruneError(f"{where} as YAML", found, f"fix that place; see {page}") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"{type(values).__name__}: {values!r}"
        do = f'begin with "{first}" or another key: value line'
        raise SoftpruneError(f"{where} as a mapping of keys to values", found, do)
    check_writable(values, where)
    return values


def yaml_text(value: Any) -> str:
    """Plain values as YAML that reads back to the same, with as little escaped as possible."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    # PyYAML writes these line ends bare, and reads them back as blanks.
    return yaml.safe_dump(value, sort_keys=False) if set("\x85\u2028\u2029") & set(text) else text


def check_writable(value: Any, where: str) -> None:
    """Raises a SoftpruneError with the key of a text that no file can hold: with a NUL, or half of a surrogate pair.

    `where` is what holds the nested values, for the message.
    """
    # Not recursive, and no place twice: aliases of YAML may make a value endless.
    waiting, seen = [("", value)], set[int]()
    while waiting:
        key, item = waiting.pop()
        if isinstance(item, str) and ("\0" in item or item != item.encode(errors="replace").decode()):
            shown = item.encode(errors="backslashreplace").decode().replace("\0", "\\0")
            expected = f"text that a file can hold in {f'`{key}` of ' if key else ''}{where}"
            found = f'"{shown:.60}", with a NUL or half of a surrogate pair'
            raise SoftpruneError(expected, found, "remove that character")
        if isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            for name, inner in pairs:
                waiting += [(key, name), (f"{key}.{name}".removeprefix("."), inner)]


def plain(message: str) -> str:
    """One of pydantic's messages without its own prefixes."""
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = [] if key_node.tag == _MERGE else self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _SCIENTIFIC, list("-+.0123456789"))
