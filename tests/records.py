"""Records of runs, as small as they can be."""

from __future__ import annotations

from typing import Any

STARTED = "2026-01-01T00:00:00+00:00"


def run_document(kind: str = "xprompt", **fields: Any) -> dict[str, Any]:
    """What run.json of a finished run holds at least, and `fields`."""
    return {
        "schema": 1,
        "kind": kind,
        "status": "complete",
        "command": f"softprune run {kind}",
        "seed": 0,
        "started": STARTED,
        "attempts": [{"started": STARTED, "command": f"softprune run {kind}", "versions": {}}],
        "versions": {},
        "hardware": {"cpu": None, "cores": None, "memory_bytes": None, "gpu": None},
        "cost": {"phases": {}},
    } | fields
