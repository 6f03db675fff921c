"""Records of runs, as small as they can be."""

from __future__ import annotations

import json
from pathlib import Path
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


def reopen(folder: Path, name: str) -> None:
    """Make a complete job one that was cut off before its last record, `name`, was written."""
    document = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(document | {"status": "running"}))
    (folder / "COMPLETE").unlink()
