"""The command line. `main` is its entry point: bad input ends in one message and exit code 2."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from typing import Any

from softprune.errors import SoftpruneError, explain_system_error
from softprune.printable import printable
from softprune.runs.processes import rank

# How long a process other than the first waits for the launcher to end it: most often the first prints the same error.
_WAIT_FOR_LAUNCHER_S = 10.0


def main() -> None:
    """Run the command that `sys.argv` names."""
    import typer

    from softprune.cli.app import app

    # The hub's client logs each retry; softprune reports once what came of them.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    logging.getLogger("httpx").setLevel(logging.ERROR)
    # Typer doesn't export the base class of its errors for a wrong command line.
    usage_error: Any = typer.BadParameter.__base__
    problem: SoftpruneError | str | None
    try:
        # Files whose names aren't UTF-8 could be opened, but no record of the run could hold the names.
        for word in sys.argv[1:]:
            if not word.isascii() and word != word.encode(errors="replace").decode():
                found = word.encode(errors="backslashreplace").decode()
                raise SoftpruneError("a command line in UTF-8", found, "rename that file or folder")
        code = app(prog_name="softprune", standalone_mode=False)
    except usage_error as error:
        problem = _explain_usage(error)
    except Exception as error:
        problem = error if isinstance(error, SoftpruneError) else explain_system_error(error)
        if problem is None:
            raise
    else:
        sys.exit(code if isinstance(code, int) else 0)
    if rank():
        time.sleep(_WAIT_FOR_LAUNCHER_S)
    print(printable(problem), file=sys.stderr)
    sys.exit(2)


def _explain_usage(error: Any) -> SoftpruneError | str:
    """The message for a command line that doesn't parse; a group of commands alone shows its help."""
    message = " ".join(re.sub(r"(?<=: )(Value error, |Input should be )", "", error.format_message()).split())
    if message.startswith("Usage:"):
        return str(error.format_message())
    if error.ctx:
        path, form = error.ctx.command_path, error.ctx.get_usage().removeprefix("Usage: ")
    else:
        path = f"softprune {sys.argv[1]}"
        form = f"{path} [OPTIONS]"
    near = getattr(error, "possibilities", None)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    found = error.message if near else message
    return SoftpruneError(f"a command of the form {form}", found, f"{hint}see {path} --help")
