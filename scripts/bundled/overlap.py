"""Was a text that measures the bundled models among the texts that trained them?

    python scripts/bundled/overlap.py WORK/texts.json --data DATA

Counts the evaluation texts that were read whole, and those that share 13 or 8 consecutive words with a training text.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from evaluate import TASKS

from softprune import load_task

WORD = re.compile(r"[a-z0-9]+")
SPANS = (13, 8)


def words(text: str) -> list[str]:
    """Letters and digits only, lower case."""
    return WORD.findall(text.lower())


def spans(tokens: list[str], length: int) -> Iterator[int]:
    """Hashes of all runs of so many words."""
    return (hash(tuple(tokens[i : i + length])) for i in range(len(tokens) - length + 1))


def shared(texts: Iterable[str], training: list[list[str]]) -> dict[str, int | str]:
    """How many texts were read whole, and how many share a span; a text shorter than a span can't share one.

    Args:
        texts: what is evaluated on.
        training: words of each text that was trained on.
    """
    rows = [words(text) for text in texts]
    whole = {tuple(tokens) for tokens in training}
    read = [" ".join(row) for row in rows if tuple(row) in whole]
    found: dict[str, int | str] = {"texts": len(rows), "whole": f"{len(read)} {read}" if read else 0}
    for length in SPANS:
        known = {span for tokens in training for span in spans(tokens, length)}
        found[f"{length} words"] = sum(any(span in known for span in spans(row, length)) for row in rows)
    return found


def main() -> None:
    """Print a Markdown table, one line for each set of each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, help="texts.json of a training run's work folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with the evaluation tasks")
    asked = parser.parse_args()
    training = [words(text) for text in json.loads(asked.texts.read_text())["texts"]]
    print("| task | set | texts | read whole | share 13 words | share 8 words |", "|---|---|---|---|---|---|", sep="\n")
    for name in TASKS:
        task = load_task(name)
        splits = task.load(asked.data / name)
        for part, examples in (("train", splits.train), ("report", splits.report)):
            # the segment that holds the text, without the template's words around it
            counts = shared((max((s.text for s in e.segments), key=len) for e in examples or ()), training)
            print("|", " | ".join([name, part, *map(str, counts.values())]), "|")


if __name__ == "__main__":
    main()
