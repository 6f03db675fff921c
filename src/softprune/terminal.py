"""Rich's text and tables for the user's data: brackets are no markup, names no emoji, and nothing is obeyed."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from softprune.printable import printable


def literal(text: object, style: str = "") -> Text:
    """A text as it is, whatever console prints it."""
    return Text(printable(text), style)


class Table(RichTable):
    """Rich's table, whose title, caption, headers and cells are literal texts.

    Args:
        headers: of its columns.
        title, caption: over and under it.
        options: as Rich's own.
    """

    def __init__(
        self, *headers: str, title: RenderableType | None = None, caption: RenderableType | None = None, **options: Any
    ) -> None:
        super().__init__(
            title=_literal(title, options.get("title_style") or "table.title"),
            caption=_literal(caption, options.get("caption_style") or "table.caption"),
            **options,
        )
        for header in headers:
            self.add_column(header)

    def add_column(self, header: RenderableType = "", footer: RenderableType = "", **options: Any) -> None:
        """Adds a column."""
        super().add_column(_literal(header), _literal(footer), **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Adds a row."""
        super().add_row(*map(_literal, cells), **options)


def _literal(shown: Any, style: str = "") -> Any:
    return literal(shown, style) if isinstance(shown, str) else shown
