"""The oddities of the four classification sets that a column map can't describe."""

from __future__ import annotations

from collections.abc import Iterator

from softprune.data.row_files import Row


def joined_article(row: Row) -> Iterator[Row]:
    """AG News's official files hold title and description apart; the hub's text joins them with a blank.

    Raises:
        KeyError: with the name of a column that is absent.
    """
    yield {**row, "text": f"{row['title']} {row['description']}"}


def without_line_breaks(row: Row) -> Iterator[Row]:
    """IMDb's reviews carry the web page's `<br />`, which says nothing and costs four tokens each.

    Raises:
        KeyError: with the name of a column that is absent.
    """
    yield {**row, "text": str(row["text"]).replace("<br />", " ")}
