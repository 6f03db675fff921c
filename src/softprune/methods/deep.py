"""stand-in until the branch comes."""

from __future__ import annotations

from typing import Any


def prefix_not_defined(config: Any, family: str) -> str | None:
    """None."""
    return None
