"""A training step that several processes share: what goes between them."""

from __future__ import annotations

import torch

from softprune.runs.processes import Processes
from softprune.training.optimizers import pack, unpack
from softprune.training.trainable import Trainable


def add_up(trainable: Trainable, total_K: torch.Tensor, processes: Processes) -> torch.Tensor:
    """Add up gradients and losses over the processes; one without an example in this batch adds nothing.

    Args:
        trainable: whose gradients become those of the whole batch, in place.
        total_K: each candidate's loss over this process's part, `[K]`, or a 0 where that is empty.
        processes: which share the batch.

    Returns:
        Each candidate's loss over the whole batch, `[K]`.
    """
    for parameter in trainable.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        processes.sum_(parameter.grad)
    # Float64: a process without an example doesn't know the losses' format.
    wide_K = total_K.double() + torch.zeros(trainable.candidates, dtype=torch.float64)
    processes.sum_(wide_K)
    return wide_K


def agree(trainable: Trainable, optimiser: torch.optim.Optimizer, processes: Processes) -> None:
    """Take the first process's numbers: other processors may round theirs differently in the course of time."""
    state = (trainable.save(), pack(optimiser))
    values, moments = processes.broadcast([{name: t.cpu() for name, t in part.items()} for part in state])
    trainable.load(values)
    unpack(optimiser, moments)
