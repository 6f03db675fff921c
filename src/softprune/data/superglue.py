"""The one oddity of SuperGLUE's official files that a column map can't describe."""

from __future__ import annotations

from collections.abc import Iterator

from softprune.data.row_files import Row


def multirc_options(row: Row) -> Iterator[Row]:
    """MultiRC nests questions in passages and answers in questions; one row per answer option comes out.

    The rows that come out have the hub's columns: `paragraph, question, answer, label` and
    `idx: {paragraph, question, answer}`.

    Raises:
        KeyError: with the name of a column that is absent.
    """
    passage = row["passage"]
    for question in passage["questions"]:
        for answer in question["answers"]:
            yield {
                "paragraph": passage["text"],
                "question": question["question"],
                "answer": answer["text"],
                "idx": {"paragraph": row["idx"], "question": question["idx"], "answer": answer["idx"]},
                **{name: answer[name] for name in ("label",) if name in answer},  # the test set has none
            }
