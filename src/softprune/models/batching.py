"""Which examples share a batch, and their padded tensors.

Examples of similar length share a batch, so little is computed on padding. Batches are a pure function of the
lengths, the seed and the epoch: a resumed run sees the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from softprune.types import Batch, Encoded

# Training batches are sorted by length inside windows of this many batches: nearly no padding, random enough order.
WINDOW = 16


def training_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Indices of an epoch's batches: shuffled, sorted by length inside windows, batches shuffled again."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), WINDOW * batch_size):
        window = sorted(order[start : start + WINDOW * batch_size], key=lambda i: lengths[i])
        batches += [tuple(int(i) for i in window[at : at + batch_size]) for at in range(0, len(window), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def scoring_batches(lengths: Sequence[int], rows: int, multiple: int = 1) -> list[tuple[int, ...]]:
    """Indices of all examples, sorted by length, in batches of `rows` rows at most, but of one example at least.

    `multiple` is the number of rows that one example becomes (the prompts that it is crossed with).
    """
    size = max(1, rows // multiple)
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    return [tuple(order[at : at + size]) for at in range(0, len(order), size)]


def take_rows(batch: Batch, at: torch.Tensor) -> Batch:
    """Some rows of a batch, with as many answers as these have, and as long."""
    mask_BAT = batch.answer_mask[at]
    answers, tokens = int(mask_BAT.any(-1).sum(-1).max()), int(mask_BAT.sum(-1).max())
    return Batch(
        input_ids=batch.input_ids[at],
        input_mask=batch.input_mask[at],
        answer_ids=batch.answer_ids[at][:, :answers, :tokens],
        answer_mask=mask_BAT[:, :answers, :tokens],
        gold=batch.gold[at],
        slot=batch.slot[at],
        places=tuple(batch.places[i] for i in at.tolist()) if batch.places else (),
    )


def collate(examples: Sequence[Encoded], pad_id: int, device: torch.device) -> Batch:
    """Pad encoded examples on the right.

    Positions then are the running count of real tokens in every architecture, whatever side its tokenizer pads on.
    """
    size = len(examples)
    longest = max(len(e.input_ids) for e in examples)
    answers = max(len(e.answer_ids) for e in examples)
    answer_length = max(len(ids) for e in examples for ids in e.answer_ids)
    input_ids = np.full((size, longest), pad_id, dtype=np.int64)
    input_mask = np.zeros((size, longest), dtype=np.int64)
    answer_ids = np.full((size, answers, answer_length), pad_id, dtype=np.int64)
    answer_mask = np.zeros((size, answers, answer_length), dtype=bool)
    for b, example in enumerate(examples):
        input_ids[b, : len(example.input_ids)] = example.input_ids
        input_mask[b, : len(example.input_ids)] = 1
        for a, ids in enumerate(example.answer_ids):
            answer_ids[b, a, : len(ids)] = ids
            answer_mask[b, a, : len(ids)] = True
    return Batch(
        input_ids=torch.from_numpy(input_ids).to(device),
        input_mask=torch.from_numpy(input_mask).to(device),
        answer_ids=torch.from_numpy(answer_ids).to(device),
        answer_mask=torch.from_numpy(answer_mask).to(device),
        gold=torch.tensor([e.gold for e in examples], dtype=torch.long, device=device),
        slot=torch.tensor([e.slot for e in examples], dtype=torch.long, device=device),
        places=tuple(e.place for e in examples) if any(e.place is not None for e in examples) else (),
    )
