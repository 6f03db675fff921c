"""The command line. `main` is the console entry: bad input ends in one message and exit code 2."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from typing import Any

from softprune.errors import SoftpruneError, of_the_machine
from softprune.printable import printable
from softprune.runs.processes import rank

_SECONDS_TO_BE_ENDED = 10.0


def main() -> None:
    """Runs the command that `sys.argv` names."""
    import typer

    from softprune.cli.app import app

    # Typer shows one of the errors for a wrong command line; what they all inherit from is its parent.
    usage_error: Any = typer.BadParameter.__base__
    _quieten()
    try:
        _check_arguments()
        code = app(prog_name="softprune", standalone_mode=False)
    except SoftpruneError as error:
        _leave(error)
    except usage_error as error:
        _leave(_usage(error))
    except Exception as error:
        told = of_the_machine(error)
        if told is None:
            raise
        _leave(told)
    sys.exit(code if isinstance(code, int) else 0)


def _quieten() -> None:
    """The hub's client tells each of its retries; what came of them is told once, by softprune."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    logging.getLogger("httpx").setLevel(logging.ERROR)


def _check_arguments() -> None:
    """Names that aren't UTF-8 would be found and opened, but no record of the run could hold them."""
    for word in sys.argv[1:]:
        if not word.isascii() and word != word.encode(errors="replace").decode():
            found = word.encode(errors="backslashreplace").decode()
            raise SoftpruneError("a command line in UTF-8", found, "rename that file or folder")


def _leave(error: SoftpruneError | str) -> None:
    if rank():  # the first of several processes most often tells the same, and then the launcher ends this one
        time.sleep(_SECONDS_TO_BE_ENDED)
    print(printable(error), file=sys.stderr)
    sys.exit(2)


def _usage(error: Any) -> SoftpruneError | str:
    """A command line that doesn't parse, in softprune's words; the help text where a command stands alone."""
    message = " ".join(re.sub(r"(?<=: )(Value error, |Input should be )", "", error.format_message()).split())
    if message.startswith("Usage:"):
        return str(error.format_message())
    path = error.ctx.command_path if error.ctx else f"softprune {sys.argv[1]}"
    form = error.ctx.get_usage().removeprefix("Usage: ") if error.ctx else f"{path} [OPTIONS]"
    near = getattr(error, "possibilities", None)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    found = error.message if near else message
    return SoftpruneError(f"a command of the form {form}", found, f"{hint}see {path} --help")
