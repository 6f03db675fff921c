"""The command line. `main` is the console entry: bad input ends in one message and exit code 2."""

from __future__ import annotations

import sys

from softprune.errors import SoftpruneError


def main() -> None:
    """Runs the command that `sys.argv` names."""
    from softprune.cli.app import app

    try:
        app(prog_name="softprune")
    except SoftpruneError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
