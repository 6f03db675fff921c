"""Hold a finished demo run to what the demo promises; exit code 1 with a sentence where it falls short.

    python scripts/check_demo.py runs/demo

The tuned score must lie at least 0.05 above the better of the constant answer and the zero-shot model, and below 0.97
(a task that is solved completely shows nothing), and at least half of the prompt's parameters must be pruned.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MARGIN, CEILING, PRUNED = 0.05, 0.97, 0.5


def shortcomings(run: dict[str, Any]) -> list[str]:
    """What a finished run.json doesn't hold of the demo's promises, in sentences."""
    results = run["results"]
    tuned = results["tuned"]["value"]
    bar = max(results["constant"]["value"], results["zero_shot"]["value"])
    pruned = 1 - run["ticket"]["share_of_parameters"]
    found = []
    if run["status"] != "complete":
        found.append(f"the run is {run['status']}, not complete")
    if tuned < bar + MARGIN:
        found.append(f"tuned {tuned:.3f} is less than {MARGIN} above constant and zero-shot ({bar:.3f})")
    if tuned >= CEILING:
        found.append(f"tuned {tuned:.3f} isn't below {CEILING}: the task is too easy")
    if pruned < PRUNED:
        found.append(f"{pruned:.0%} of the parameters were pruned, less than {PRUNED:.0%}")
    return found


def main() -> int:
    """Check the run folder named on the command line."""
    run = json.loads((Path(sys.argv[1]) / "run.json").read_text(encoding="utf-8"))
    found = shortcomings(run)
    for sentence in found:
        print(f"demo: {sentence}", file=sys.stderr)
    if not found:
        seconds = run["cost"]["seconds"]
        print(f"demo: holds what it promises ({seconds:.0f} s)")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
