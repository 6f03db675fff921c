"""Four tickets in one batch against each of them alone: the same rows, the same backbone, alternating.

    python benchmarks/paired.py [--rounds 7] [--shape tiny]

The rows are the generated task's 1,080 messages. Alone, one ticket answers all of them; paired, each row is answered by
one of four tickets of different lengths (drop: 20, 12, 7 and 2 tokens). First the answers are compared: what a ticket
says in the paired batch is what it says alone. Printed: medians, and paired over the mean of the four alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timing import alternate, flags, medians, show, spent, write

from softprune import load_backbone, load_task
from softprune.data.demo import generate
from softprune.evaluation.predict import Prediction, predict
from softprune.models import BUNDLED
from softprune.models.base import Backbone
from softprune.prompts.soft_prompts import masked_state
from softprune.prompts.ticket import Ticket, TicketInfo
from softprune.types import Mask

P = 20
KEPT = (20, 12, 7, 2)


def ticket_of(backbone: Backbone, kept: int, seed: int) -> Ticket:
    """A random ticket of so many tokens, of the embeddings' size."""
    hidden = backbone.info.hidden
    vectors = torch.randn(P, hidden, generator=torch.Generator().manual_seed(seed))
    token_P = torch.arange(P) < kept
    mask = Mask(token_P, token_P[:, None].clone())
    info = TicketInfo(
        backbone=backbone.info.name,
        revision=None,
        family=backbone.info.family,
        fingerprint=backbone.info.fingerprint,
        task="demo",
        task_version="1",
        leading=backbone.leading,
        embedding_scale=backbone.embedding_scale,
        removal="drop",
        score="sum",
        match="score",
        max_answer_length=8,
        max_length=256,
        token_ratio=1 - kept / P,
        piece_ratio=0.0,
        prompt_tokens=P,
        pieces_per_token=1,
        hidden=hidden,
        tokens=kept,
        pieces=kept,
        parameters=kept * hidden,
        select=None,
    )
    spread = float(backbone.embeddings_VH().std())
    return Ticket(masked_state(vectors * spread, mask), info, load_task("demo").definition)


def main(words: Sequence[str] | None = None) -> None:
    """Compare answers, then time."""
    parser = flags(__doc__, 7)
    parser.add_argument("--shape", default="tiny", choices=BUNDLED, help="a bundled model")
    asked = parser.parse_args(words)
    backbone = load_backbone(asked.shape)
    tickets = {f"{kept} tokens": ticket_of(backbone, kept, seed) for seed, kept in enumerate(KEPT)}
    names = list(tickets)
    texts = [row["text"] for rows in generate().values() for row in rows][: 8 if asked.quick else None]
    asked.rounds = 1 if asked.quick else asked.rounds
    rows: list[dict[str, Any]] = [{"text": text, "prompt": names[n % 4]} for n, text in enumerate(texts)]

    def alone(name: str) -> list[Prediction]:
        return list(predict(tickets[name], rows, backbone=backbone))

    def paired() -> list[Prediction]:
        return list(predict(tickets, rows, backbone=backbone))

    singles = {name: alone(name) for name in names}
    together = paired()
    same = sum(p.answer == singles[p.prompt][n].answer for n, p in enumerate(together))
    gap = max(
        abs(a - b)
        for n, p in enumerate(together)
        for a, b in zip(p.probabilities, singles[p.prompt][n].probabilities, strict=True)
    )
    runs = {name: partial(spent, partial(alone, name)) for name in names} | {"paired": partial(spent, paired)}
    times = alternate(runs, asked)
    over = [
        times["paired"][n].wall / statistics.mean(times[name][n].wall for name in names) for n in range(asked.rounds)
    ]
    found = medians(times)
    show(
        f"{len(rows):,} rows on {asked.shape}, seconds",
        ("", "median"),
        [[name, value] for name, value in found.items()],
    )
    result = {
        "rows": len(rows),
        "answers_alike": same,
        "greatest_gap_of_probabilities": gap,
        "seconds": found,
        "paired_over_one_alone": statistics.median(over),
        "rounds": times,
    }
    notes = [
        f"{same:,} of {len(rows):,} answers the same, probabilities differ by {gap:.1e} at most",
        f"paired over one alone (mean of the four): median ratio {result['paired_over_one_alone']:.3f}",
    ]
    write("paired", asked, [result], notes)


if __name__ == "__main__":
    main()
