"""Listing and reading tasks needs none of the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "peft", "datasets", "pyarrow", "scipy", "sklearn", "pandas")


def test_tasks_and_significance_stay_light():
    code = (
        "import sys, softprune.statistics.bootstrap\n"
        "from softprune.data import load_task, task_names, select_sets\n"
        "select_sets(load_task('demo').load(), seed=0)\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
