"""YAML as softprune reads it, in recipes and task files alike."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"
_SCIENTIFIC = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, in which 1e-5 is a number and a key given twice is an error.

    Raises:
        yaml.YAMLError: for whatever else stands there.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("brackets nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # PyYAML lets errors of impossible dates, numbers and explicit tags through.
        raise yaml.YAMLError(f"a value that can't be read ({error})") from None


def yaml_text(value: Any) -> str:
    """Plain values as YAML that reads back to the same, with text readable as far as it can be."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    # PyYAML writes these line ends bare, and reads them back as blanks.
    return yaml.safe_dump(value, sort_keys=False) if set("\x85\u2028\u2029") & set(text) else text


def plain(message: str) -> str:
    """One of pydantic's messages without the words that speak of its own workings."""
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
