"""Count the files and functions of softprune that one command enters.

    python scripts/count_entered.py xprompt --backbone tiny --task cb --shots 30 --out runs/entered

Counted in all threads of this process: Python files, named functions (without lambdas, comprehensions and the bodies
of classes and modules), and how often a call goes from one file of softprune to another. The command's own output
goes to stderr.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from types import CodeType, FrameType
from typing import Any


class Entered:
    """What was entered, filled by a profile function.

    Attributes:
        functions: calls by (file, qualified name).
        crossings: calls by (calling file, called file), where the two differ.
    """

    def __init__(self, package: Path) -> None:
        self.package = f"{package}/"
        self.functions: Counter[tuple[str, str]] = Counter()
        self.crossings: Counter[tuple[str, str]] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call, as `sys.setprofile` hands it over."""
        code = frame.f_code
        if event != "call" or not self._is_ours(code):
            return
        self.functions[code.co_filename, code.co_qualname] += 1
        caller = frame.f_back
        while caller is not None and not self._is_ours(caller.f_code):
            caller = caller.f_back  # torch and the like in between
        if caller is not None and caller.f_code.co_filename != code.co_filename:
            self.crossings[caller.f_code.co_filename, code.co_filename] += 1

    def _is_ours(self, code: CodeType) -> bool:
        # Bodies of classes and modules have no optimised locals; templates of pages aren't Python files.
        is_function = bool(code.co_flags & inspect.CO_OPTIMIZED)
        return is_function and code.co_filename.startswith(self.package) and code.co_filename.endswith(".py")

    def named(self) -> list[tuple[str, str]]:
        """The functions that have a name of their own."""
        return [(file, name) for file, name in self.functions if not name.split(".")[-1].startswith("<")]


def main() -> int:
    """Run the command and print the counts."""
    import softprune
    from softprune.cli import main as command

    entered = Entered(Path(softprune.__file__).parent)
    sys.argv = ["softprune", *sys.argv[1:]]
    code = 0
    threading.setprofile(entered)
    sys.setprofile(entered)
    try:
        with redirect_stdout(sys.stderr):
            command()
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    named = entered.named()
    calls = sum(entered.functions[key] for key in named)
    print(f"files: {len({file for file, _ in named})}")
    print(f"named functions: {len(named)}")
    print(f"with lambdas and comprehensions: {len(entered.functions)}")
    print(f"calls of named functions: {calls}")
    print(f"pairs of files that call each other: {len(entered.crossings)}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
