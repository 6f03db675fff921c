"""Losses and gradients of one optimiser step, for candidates that share a batch or have their own.

Axes here: K candidates, R rows of one backbone call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from softprune.runs.processes import Processes
from softprune.training.optimizers import pack, unpack
from softprune.training.trainable import RowTrainable, Trainable
from softprune.types import Batch

# Rows of different candidates share a backbone call while the longest is at most this many times the shortest.
SLACK = 1.2

Row = tuple[int, int]
"""A candidate's place among those in training, and the example that it sees."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Training data as the loop needs it: lengths that the backbone reads, and a batch for some indices."""

    lengths: Sequence[int]
    batch: Callable[[Sequence[int]], Batch]


def backward_shared(
    trainable: Trainable, feed: Feed, batches: Sequence[Sequence[int]], accumulate: int, processes: Processes
) -> torch.Tensor:
    """Gradients of all candidates on the same examples.

    Args:
        trainable: K candidates; the gradient of the sum of their losses is each one's own.
        feed: the training examples.
        batches: of each candidate, the indices of its examples: all alike.
        accumulate: backward passes to split them into.
        processes: which share the batch.

    Returns:
        Each candidate's share of its mean loss, `[K]`, from this process's examples; a scalar 0 where it has none.
    """
    indices = batches[0]
    total_K = torch.zeros(())
    mine = processes.part(indices)
    size = math.ceil(len(mine) / accumulate) or 1
    for start in range(0, len(mine), size):
        part = mine[start : start + size]
        # Over the whole batch, not the part: so parts and processes add up to its mean.
        loss_K = trainable.loss(feed.batch(part)).sum(1) / len(indices)
        loss_K.sum().backward()
        total_K = total_K + loss_K.detach().cpu()
    return total_K


def backward_apart(
    trainable: Trainable, feed: Feed, batches: Sequence[Sequence[int]], accumulate: int, processes: Processes
) -> torch.Tensor:
    """Gradients of candidates that each see their own examples; rows of similar length share a call.

    Args:
        trainable: K candidates, a `RowTrainable`.
        feed: the training examples.
        batches: of each candidate, the indices of its examples; the last batch of an epoch is shorter.
        accumulate: a call has at most as many rows as one of so many parts of a shared batch would have.
        processes: which share the rows.

    Returns:
        As `backward_shared`.
    """
    rows = [(k, index) for k, batch in enumerate(batches) for index in batch]
    rows.sort(key=lambda row: feed.lengths[row[1]])
    mine, size = processes.part(rows), math.ceil(max(map(len, batches)) / accumulate)
    total_K = torch.zeros(())
    for part in parts_by_length(mine, feed.lengths, least=size, most=size * len(batches)):
        counts = [sum(k == place for place, _ in part) for k in range(len(batches))]
        loss_R = cast(RowTrainable, trainable).row_losses(feed.batch([index for _, index in part]), counts)
        weighted_R = loss_R * loss_R.new_tensor([1 / len(batches[k]) for k, _ in part])
        weighted_R.sum().backward()
        loss_K = torch.stack([loss_r.sum() for loss_r in weighted_R.detach().cpu().split(counts)])
        total_K = total_K + loss_K
    return total_K


def parts_by_length(rows: Sequence[Row], lengths: Sequence[int], *, least: int, most: int) -> list[list[Row]]:
    """Split rows into backbone calls of similar length; within one, each candidate's rows are together.

    Args:
        rows: sorted by length.
        lengths: tokens of each example.
        least: rows that a call takes however their lengths differ.
        most: rows that it takes at most.
    """
    parts: list[list[Row]] = []
    shortest = 0
    for row in rows:
        length = lengths[row[1]]
        room = parts and len(parts[-1]) < most
        if not room or (len(parts[-1]) >= least and length > SLACK * shortest):
            parts.append([])
            shortest = length
        parts[-1].append(row)
    return [sorted(part, key=lambda row: row[0]) for part in parts]


def sum_gradients(trainable: Trainable, loss_K: torch.Tensor, processes: Processes) -> torch.Tensor:
    """Add up gradients (in place) and losses over the processes; one without an example in this batch adds nothing.

    Args:
        trainable: whose gradients become those of the whole batch.
        loss_K: each candidate's loss over this process's part, `[K]`, or a scalar 0 where that is empty.
        processes: which share the batch.

    Returns:
        Each candidate's loss over the whole batch, `[K]`.
    """
    for parameter in trainable.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        processes.sum_(parameter.grad)
    # Float64: a process without an example doesn't know the losses' format.
    wide_K = loss_K.double() + torch.zeros(trainable.candidates, dtype=torch.float64)
    processes.sum_(wide_K)
    return wide_K


def agree(trainable: Trainable, optimiser: torch.optim.Optimizer, processes: Processes) -> None:
    """Take the first process's numbers: other processors may round theirs differently in the course of time."""
    state = (trainable.save(), pack(optimiser))
    values, moments = processes.broadcast([{name: t.cpu() for name, t in part.items()} for part in state])
    trainable.load(values)
    unpack(optimiser, moments)
