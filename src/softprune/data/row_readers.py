"""What a map of columns can't describe: rows that must be changed, or that hold several examples.

Each reader takes a row and gives the rows that its examples are made of. It raises KeyError with the name of a column
that is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from softprune.data.row_files import Row


def multirc_options(row: Row) -> Iterator[Row]:
    """MultiRC nests questions in passages and answers in questions; one row per answer option comes out.

    The rows have the hub's columns: `paragraph, question, answer, label` and `idx: {paragraph, question, answer}`.
    """
    passage = row["passage"]
    for question in passage["questions"]:
        for answer in question["answers"]:
            option = {
                "paragraph": passage["text"],
                "question": question["question"],
                "answer": answer["text"],
                "idx": {"paragraph": row["idx"], "question": question["idx"], "answer": answer["idx"]},
            }
            if "label" in answer:  # the test set has none
                option["label"] = answer["label"]
            yield option


def joined_article(row: Row) -> Iterator[Row]:
    """AG News's official files hold title and description apart; the hub's text joins them with a blank."""
    yield {**row, "text": f"{row['title']} {row['description']}"}


def without_line_breaks(row: Row) -> Iterator[Row]:
    """IMDb's reviews carry the web page's `<br />`, which says nothing and costs four tokens each."""
    yield {**row, "text": str(row["text"]).replace("<br />", " ")}


ROW_READERS: dict[str, Callable[[Row], Iterator[Row]]] = {
    "multirc": multirc_options,
    "ag_news": joined_article,
    "imdb": without_line_breaks,
}
"""By the name that a source's `rows` has."""
