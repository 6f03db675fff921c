"""Which vocabulary tokens lie nearest to a tuned prompt's, by cosine?

    python scripts/bundled/nearest.py RUN [--words 5]

RUN is a run folder, such as evaluate.py leaves one for each cell.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch.nn import functional

from softprune import Ticket, load_backbone
from softprune.prompts.initialization import common_words


def nearest(
    prompt_PH: torch.Tensor, table_VH: torch.Tensor, ids: list[int], count: int
) -> list[list[tuple[int, float]]]:
    """For each prompt token the positions in `ids` of its nearest vocabulary tokens, with their cosines.

    Args:
        prompt_PH: the prompt.
        table_VH: the backbone's input embeddings.
        ids: vocabulary to look among.
        count: how many.
    """
    cosines = functional.normalize(prompt_PH.float(), dim=-1) @ functional.normalize(table_VH[ids].float(), dim=-1).T
    values, places = cosines.topk(count)
    return [list(zip(*row, strict=True)) for row in zip(places.tolist(), values.tolist(), strict=True)]


def main() -> None:
    """Print a Markdown table, one line a prompt token."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--words", type=int, default=5)
    asked = parser.parse_args()
    info = json.loads((asked.run / "run.json").read_text())
    backbone = load_backbone(info["backbone"]["name"])
    table = backbone.embeddings_VH().cpu()
    ids, words = common_words(backbone.tokenizer, table.shape[0])
    prompt = Ticket.load(asked.run).prompt()
    print("| token | started as | nearest, with cosine |", "|---|---|---|", sep="\n")
    rows = nearest(prompt, table, list(ids), asked.words)
    for place, (row, first) in enumerate(zip(rows, info["prompt"]["words"], strict=True), 1):
        print(f"| {place} | {first} |", ", ".join(f"{words[at]} {value:.2f}" for at, value in row), "|")


if __name__ == "__main__":
    main()
