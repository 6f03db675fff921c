"""One attempt at a run: it ends complete, or with a note of why it didn't."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from softprune.runs.store import RunFolder


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
