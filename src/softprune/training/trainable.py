"""What the loop trains, and the gradients of one step of it, for candidates that share a batch or have their own.

Axes here: K candidates, R rows of one backbone call.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import nn

from softprune.models.base import Backbone, repeat_rows, tile
from softprune.models.causal import CausalBackbone
from softprune.prompts.forms.base import Form
from softprune.prompts.soft_prompts import reading
from softprune.runs.processes import Processes
from softprune.training.optimizers import pack, unpack
from softprune.training.teaching import Teacher
from softprune.types import Batch, Mask

# Rows of different candidates share a backbone call while the longest is at most this many times the shortest.
SLACK = 1.2

# A candidate's place among those in training, and the example that it sees.
Row = tuple[int, int]


class Trainable(Protocol):
    """Anything the loop can train. Its candidates (often one) share batches and stay independent of each other."""

    @property
    def candidates(self) -> int:
        """K, the candidates still in training."""

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser updates; K is the first axis where there are several candidates."""

    def loss(self, batch: Batch) -> torch.Tensor:
        """Loss of each candidate on each example, `[K, B]`."""

    def save(self) -> dict[str, torch.Tensor]:
        """Current values; every tensor has K as its first axis."""

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take saved values back."""

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the candidates only."""


class RowTrainable(Trainable, Protocol):
    """One whose candidates may see different examples at a step."""

    def row_losses(self, batch: Batch, counts: Sequence[int]) -> torch.Tensor:
        """Loss of each row `[R]`: candidate 0 on the first `counts[0]` examples, candidate 1 on those after, and on."""


class PromptTrainable:
    """K soft prompts in front of a frozen backbone (equation 1).

    What the masks prune of the starting values is set to zero and stays there. Under `drop` all masks have equally many
    surviving tokens. `score` is how answers are scored under `rank`. With a `teacher` they learn its answers too.
    """

    def __init__(
        self,
        backbone: Backbone,
        vectors_KPH: torch.Tensor,
        masks: Sequence[Mask],
        *,
        removal: str,
        loss: str,
        score: str,
        teacher: Teacher | None = None,
    ) -> None:
        self.backbone, self.removal, self.loss_name, self.score = backbone, removal, loss, score
        self.teacher = teacher
        start = vectors_KPH.to(backbone.device, backbone.prompt_dtype)
        self.masks, self.reading = list(masks), reading(masks, start.shape[2], removal, start)
        self.vectors_KPH = nn.Parameter(start * self.reading.elements_KPH)

    @property
    def candidates(self) -> int:
        """K."""
        return int(self.vectors_KPH.shape[0])

    def parameters(self) -> list[nn.Parameter]:
        """The prompts, `[K, P, H]`."""
        return [self.vectors_KPH]

    def prompts(self) -> torch.Tensor:
        """What the backbone reads, `[K, Q, H]`."""
        return self.reading(self.vectors_KPH)

    def loss(self, batch: Batch) -> torch.Tensor:
        """`[K, B]`."""
        return self.row_losses(batch, [len(batch)] * self.candidates).view(-1, len(batch))

    def row_losses(self, batch: Batch, counts: Sequence[int]) -> torch.Tensor:
        """`[R]`; some candidates may have no row."""
        if self.teacher is not None:
            return self.teacher.losses(self.backbone, self.prompts(), batch, self.loss_name, self.score, counts)
        return self.backbone.row_losses(self.prompts(), batch, self.loss_name, self.score, counts)

    def save(self) -> dict[str, torch.Tensor]:
        """The prompts' values."""
        return {"vectors_KPH": self.vectors_KPH.detach().clone()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take values back, in place."""
        self.vectors_KPH.data = tensors["vectors_KPH"].to(self.vectors_KPH)

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the prompts only."""
        self.masks = [self.masks[index] for index in indices]
        self.vectors_KPH.data = self.vectors_KPH.data[list(indices)]
        self.reading = reading(self.masks, self.vectors_KPH.shape[2], self.removal, self.vectors_KPH)
        self.vectors_KPH.grad = None


class FormTrainable:
    """K prompts that a form makes, in front of a frozen backbone; `score` is how answers are scored under `rank`."""

    def __init__(self, backbone: Backbone, form: Form, *, loss: str, score: str) -> None:
        self.backbone, self.form, self.loss_name, self.score = backbone, form, loss, score

    @property
    def candidates(self) -> int:
        """K."""
        return self.form.candidates

    def parameters(self) -> list[nn.Parameter]:
        """The form's numbers."""
        return list(self.form.trained.values())

    def prompts(self) -> torch.Tensor:
        """What the backbone reads, `[K, P, H]`."""
        return self.form.produce()

    def loss(self, batch: Batch) -> torch.Tensor:
        """`[K, B]`."""
        prompts_KPH = self.prompts()
        losses_KB = self.backbone.losses(prompts_KPH, batch, self.loss_name, self.score)
        counts = [len(batch)] * len(prompts_KPH)
        return self._with_labels(losses_KB.flatten(), prompts_KPH, batch, counts).view_as(losses_KB)

    def row_losses(self, batch: Batch, counts: Sequence[int]) -> torch.Tensor:
        """`[R]`; some candidates may have no row."""
        prompts_KPH = self.prompts()
        losses_R = self.backbone.row_losses(prompts_KPH, batch, self.loss_name, self.score, counts)
        return self._with_labels(losses_R, prompts_KPH, batch, counts)

    def _with_labels(
        self, losses_R: torch.Tensor, prompts_KPH: torch.Tensor, batch: Batch, counts: Sequence[int]
    ) -> torch.Tensor:
        """Losses that are means over the answer's tokens and those of labels within the prompt, weighted."""
        labels = self.form.labels()
        if labels is None or not isinstance(self.backbone, CausalBackbone):
            return losses_R
        log_probs_KM = self.backbone.prompt_log_probs(prompts_KPH, labels.places_KM, labels.ids_KM)
        within_R = -repeat_rows((log_probs_KM * labels.weights_KM).sum(1), counts)
        tokens_B = batch.answer_mask[torch.arange(len(batch), device=batch.gold.device), batch.gold].sum(-1)
        tokens_R, count_R = tile(tokens_B, len(losses_R)), repeat_rows(labels.count_K, counts)
        return (losses_R * tokens_R + within_R) / (tokens_R + count_R)

    def save(self) -> dict[str, torch.Tensor]:
        """The form's numbers, and the vectors that they make."""
        return self.form.save() | {"vectors_KPH": self.prompts().detach().clone()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the form's numbers back, in place."""
        self.form.load(tensors)

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the prompts only."""
        self.form.keep(indices)


class WeightsTrainable(ABC):
    """A model's weights, or what was put beside them, as one candidate."""

    candidates = 1

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        self._named = dict(named)

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """`[1, B]`."""

    def named(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return dict(self._named)

    def parameters(self) -> list[nn.Parameter]:
        """The same without names."""
        return list(self._named.values())

    def save(self) -> dict[str, torch.Tensor]:
        """Current values, with an axis for the one candidate."""
        return {name: value.detach().clone()[None] for name, value in self._named.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take saved values back, in place."""
        with torch.no_grad():
            for name, value in self._named.items():
                value.copy_(tensors[name][0])

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with the one candidate."""
        assert list(indices) == [0]


def products_in(compute: torch.dtype, weights: torch.dtype, device: torch.device) -> torch.autocast:
    """Matrix products in a dtype, where the weights are in another."""
    wanted = compute != weights
    return torch.autocast(device.type, dtype=compute if wanted else None, enabled=wanted)


def seed_dropout(seed: int, work: str, indices: Sequence[int]) -> None:
    """Let seed and batch decide what dropout draws, so that training goes on bit by bit after a kill."""
    torch.manual_seed(zlib.crc32(repr((seed, work, tuple(indices))).encode()))


# --- the gradients of a step ---


@dataclass(frozen=True, slots=True)
class Feed:
    """Training data as the loop needs it: lengths that the backbone reads, and a batch for some indices."""

    lengths: Sequence[int]
    batch: Callable[[Sequence[int]], Batch]


def backward(
    trainable: Trainable, feed: Feed, batches: Sequence[Sequence[int]], accumulate: int, processes: Processes
) -> torch.Tensor:
    """Gradients of a step, of all processes together, each candidate on its own batch of indices; mean losses `[K]`.

    Candidates that are handed the very same batch share backbone calls; others need a `RowTrainable`.
    """
    if all(batch is batches[0] for batch in batches):
        total_K = torch.zeros(())
        mine = processes.part(batches[0])
        size = math.ceil(len(mine) / accumulate) or 1
        for start in range(0, len(mine), size):
            part = mine[start : start + size]
            # Over the whole batch, not the part: so parts and processes add up to its mean.
            loss_K = trainable.loss(feed.batch(part)).sum(1) / len(batches[0])
            loss_K.sum().backward()
            total_K = total_K + loss_K.detach().cpu()
    else:
        total_K = _backward_apart(cast(RowTrainable, trainable), feed, batches, accumulate, processes)
    if processes.size == 1:
        return total_K
    for parameter in trainable.parameters():
        if parameter.grad is None:  # this process had no example
            parameter.grad = torch.zeros_like(parameter)
        processes.sum_(parameter.grad)
    # Float64: a process without an example doesn't know the losses' format, nor K.
    wide_K = total_K.double() + torch.zeros(trainable.candidates, dtype=torch.float64)
    processes.sum_(wide_K)
    return wide_K


def _backward_apart(
    trainable: RowTrainable, feed: Feed, batches: Sequence[Sequence[int]], accumulate: int, processes: Processes
) -> torch.Tensor:
    """Candidates that each see their own examples; rows of similar length share a call.

    The last batch of an epoch is shorter. A call has at most as many rows as one of `accumulate` parts of a shared
    batch would have.
    """
    rows = [(k, index) for k, batch in enumerate(batches) for index in batch]
    rows.sort(key=lambda row: feed.lengths[row[1]])
    mine, size = processes.part(rows), math.ceil(max(map(len, batches)) / accumulate)
    total_K = torch.zeros(())
    for part in parts_by_length(mine, feed.lengths, least=size, most=size * len(batches)):
        counts = [sum(k == place for place, _ in part) for k in range(len(batches))]
        loss_R = trainable.row_losses(feed.batch([index for _, index in part]), counts)
        weighted_R = loss_R * loss_R.new_tensor([1 / len(batches[k]) for k, _ in part])
        weighted_R.sum().backward()
        loss_K = torch.stack([loss_r.sum() for loss_r in weighted_R.detach().cpu().split(counts)])
        total_K = total_K + loss_K
    return total_K


def parts_by_length(rows: Sequence[Row], lengths: Sequence[int], *, least: int, most: int) -> list[list[Row]]:
    """Split rows, sorted by length, into backbone calls; within one, each candidate's rows are together.

    A call takes `least` rows however their lengths differ, and `most` at most; `lengths` are tokens of each example.
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


def agree(trainable: Trainable, optimiser: torch.optim.Optimizer, processes: Processes) -> None:
    """Take the first process's numbers: other processors may round theirs differently in the course of time."""
    if processes.size == 1:
        return
    state = (trainable.save(), pack(optimiser))
    values, moments = processes.broadcast([{name: t.cpu() for name, t in part.items()} for part in state])
    trainable.load(values)
    unpack(optimiser, moments)
