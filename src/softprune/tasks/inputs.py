"""Rows to be answered: which of a task's layouts they are written in, told by the first of them."""

from __future__ import annotations

from softprune.errors import SoftpruneError
from softprune.tasks.files import Located
from softprune.tasks.schema import Definition, Source, named_sources
from softprune.tasks.template import asked_from


def layout_of(definition: Definition, first: Located) -> Source:
    """The layout that a row reads in; one that also tells its label before others.

    Raises:
        SoftpruneError: where none fits; it names the fields.
    """
    plain = Source(labels={answer: answer for answer in definition.answers}, verified=True)
    layouts = [*named_sources(definition.sources).values(), plain]
    best = max(layouts, key=lambda source: _fit(definition, source, first))  # the first of equals
    if _fit(definition, best, first) == 0:
        list(asked_from(definition, plain, [first]))  # raises
    return best


def _fit(definition: Definition, source: Source, first: Located) -> int:
    """0 where a row doesn't read in a layout, 1 where it does, 2 where it tells its label too."""
    try:
        read = list(asked_from(definition, source, [first]))
    except SoftpruneError:
        return 0
    return 2 if read and all(each.example.gold >= 0 for each in read) else 1
