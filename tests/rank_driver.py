"""Run a recipe as one of several processes; the one of rank 1 meets trouble at its second scoring.

RANK=... WORLD_SIZE=... python tests/rank_driver.py RECIPE OUT
"""

from __future__ import annotations

import os
import sys
from typing import Any

from softprune.cli import main
from softprune.errors import SoftpruneError
from softprune.training import jobs

recipe, out = sys.argv[1:]
evaluate, seen = jobs.evaluate, []


def failing(*given: Any) -> Any:
    seen.append(1)
    if os.environ["RANK"] == "1" and len(seen) == 2:
        raise SoftpruneError("a whole disk", "a broken one", "fix it")
    return evaluate(*given)


jobs.evaluate = failing
sys.argv = ["softprune", "run", recipe, "--out", out]
main()
