"""What Windows or macOS lack is not needed for `--help` nor for tuning a prompt on a CPU.

This is Linux with the modules and functions of Linux alone taken away: no test runs on the other systems themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_LINUX = """
import os, sys, warnings
import psutil  # its own part for Linux imports resource
for module in ("fcntl", "resource"):
    sys.modules[module] = None  # an import of it fails
for name in ("fork", "geteuid", "killpg", "pread", "pwrite", "sched_getaffinity", "setsid", "sysconf"):
    delattr(os, name)
warnings.filterwarnings("ignore", "(flock|only soft)")  # filelock falls back to another kind of lock
from softprune.cli import main
main()
"""
TUNE = ("kind=tune", "task.shots=8", "task.limit_report=4", "task.max_length=16", "prompt.tokens=2", "tuning.epochs=1")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WITHOUT_LINUX, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_help_needs_no_linux() -> None:
    shown = run("--help")
    assert shown.returncode == 0, shown.stderr
    assert "xprompt" in shown.stdout


@pytest.mark.slow
def test_tuning_needs_no_linux(tmp_path: Path) -> None:
    tuned = run("tune", "--backbone", "tiny-causal", "--out", str(tmp_path / "run"), *TUNE)
    assert tuned.returncode == 0, tuned.stderr
    assert (tmp_path / "run" / "COMPLETE").exists()
    assert (tmp_path / "run" / "report").is_dir()
