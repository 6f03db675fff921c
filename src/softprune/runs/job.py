"""One attempt at a run: it ends complete, or with a note of why it didn't."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from softprune.runs.folder_checks import JSON
from softprune.runs.record import Kind
from softprune.runs.run_folder import RunFolder

Finish = Callable[[Path], object]
"""Called with the folder before the run is marked complete."""


def run_into(
    out: Path,
    work: Callable[[RunFolder], None],
    *,
    recipe_text: str,
    resolved: dict[str, JSON],
    kind: Kind,
    command: str,
    may_change: Collection[str],
    finish: Finish | None,
    told: Callable[[Exception, RunFolder], Exception],
    done: Callable[[RunFolder], None],
) -> bool:
    """Run by one process into a folder, or take up what was cut off there; a complete run is left as it is.

    Args:
        out: the folder.
        work: everything but `finish`.
        recipe_text, resolved, kind, command, may_change: as of `RunFolder.open`.
        finish: the last thing that is done.
        told, done: as of `attempt`, and with the run.

    Returns:
        Whether anything was left to do.
    """
    run = RunFolder.open(
        out, recipe_text=recipe_text, resolved=resolved, kind=kind, command=command, may_change=may_change
    )

    def all_of_it() -> None:
        work(run)
        if finish is not None:
            with run.phase("write"):
                finish(run.path)

    return attempt(run, all_of_it, lambda error: told(error, run), lambda: done(run))


def attempt(
    run: RunFolder, work: Callable[[], None], told: Callable[[Exception], Exception], done: Callable[[], None]
) -> bool:
    """Do what is left of a run, and close its folder.

    Args:
        run: open.
        work: everything up to the last file.
        told: an error in a user's words, or the error itself.
        done: called instead of `work` where nothing is left.

    Returns:
        Whether anything was left to do.
    """
    try:
        if run.is_complete:
            done()
            return False
        work()
        run.complete()
        return True
    except Exception as error:
        found = told(error)
        with suppress(OSError):  # a full disk may not even take the note
            _note(run, found)
        if found is error:
            raise
        raise found from error
    finally:
        run.close()


def _note(run: RunFolder, error: Exception) -> None:
    """Why a run ended early: in its folder if that holds any work. A complete one stays as it is."""
    if run.is_complete:
        return
    if run.has_work:
        run.fail(str(error))
    else:
        run.discard()
