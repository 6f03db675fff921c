"""Rich's text and tables for the user's data, shown literally: no markup, no emoji, no control characters."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from softprune.printable import printable


def literal(text: object, style: str = "") -> Text:
    """A text as it is, whichever console prints it."""
    return Text(printable(text), style)


class Table(RichTable):
    """Rich's table, whose title, caption, headers, footers and cells are literal texts.

    Args:
        headers: of its columns.
        title, caption: above and below it.
        options: those of Rich's table.
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
        """Add a column."""
        super().add_column(_literal(header), _literal(footer), **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row."""
        super().add_row(*map(_literal, cells), **options)


def _literal(shown: Any, style: str = "") -> Any:
    return literal(shown, style) if isinstance(shown, str) else shown
