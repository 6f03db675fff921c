"""The models and settings that `bench` times, and how their rounds are timed."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch

from softprune.models.batching import scoring_batches
from softprune.token_pruning.forward import forward
from softprune.token_pruning.model import TokenModel
from softprune.token_pruning.packing import pack

UNPRUNED = "unpruned"

Ids = Sequence[Sequence[int]]


class Spent(NamedTuple):
    """Seconds of wall time, and of CPU time of this process on all cores, which other programs disturb less."""

    wall: float
    cpu: float


Times = dict[str, list[Spent]]
"""What each entry took in each round, by name."""


@dataclass(frozen=True, slots=True)
class BenchEntry:
    """One way to run a model.

    Attributes:
        name: of its row.
        kind: "padded" (transformers' own model), "packed" (ours, unpruned) or "pruned".
        model: whose weights and rule; `UNPRUNED` or a pruned model's name.
        dtype: of the weights.
        sorted: whether texts of similar length share a batch.
        attention: "own", "fused" or "eager"; layers of a pruned model that need scores are eager in any case.
        head_only: whether the last layer is computed for the head's token alone.
        read: a batch of token ids to logits `[B, C]`.
    """

    name: str
    kind: str
    model: str
    dtype: str
    sorted: bool
    attention: str
    head_only: bool
    read: Callable[[Ids], torch.Tensor]

    def facts(self) -> dict[str, Any]:
        """All fields but the function."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "read"}


def make_entries(unpruned: TokenModel, models: Mapping[str, TokenModel]) -> list[BenchEntry]:
    """All entries, in the order of the table."""
    dtype, own = dtype_of(unpruned), unpruned.encoder.model
    wide = {} if dtype == "float32" else {"float32": copy.deepcopy(own).float()}
    entries = []
    for name, model in {**wide, dtype: own}.items():
        read = _padded_reader(unpruned, model)
        for order, is_sorted in (("as they come", False), ("by length", True)):
            shown = f"padded, {order}, {name}"
            entries.append(BenchEntry(shown, "padded", UNPRUNED, name, is_sorted, "own", head_only=False, read=read))
    for name, attention, head_only in (
        ("packed, fused", "fused", False),
        ("packed, eager", "eager", False),
        ("packed, head only", "fused", True),
    ):
        read = packed_reader(unpruned, head_only, fused=attention == "fused")
        entries.append(BenchEntry(name, "packed", UNPRUNED, dtype, True, attention, head_only, read))
    for name, model in models.items():
        for head_only in (False, True):
            shown = f"{name}, head only" if head_only else name
            read = packed_reader(model, head_only)
            entries.append(BenchEntry(shown, "pruned", name, dtype, True, "fused", head_only, read))
    return entries


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> Times:
    """Time entries in turns: after a warm-up that isn't measured, one turn each in every round.

    Every round begins with another entry, since the one that follows a long turn finds other data in the caches.
    """
    for run in runs.values():
        run()
    names = list(runs)
    times: Times = {name: [] for name in names}
    for number in range(rounds):
        at = number % len(names)
        for name in (*names[at:], *names[:at]):
            times[name].append(time_call(runs[name], device))
    return times


def time_call(run: Callable[[], object], device: torch.device) -> Spent:
    """What a call took, including the work of a GPU."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    _wait(device)
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def median(times: Times, name: str) -> float:
    """Seconds of wall time."""
    return statistics.median(each.wall for each in times[name])


def ratio(times: Times, above: str, below: str) -> dict[str, float]:
    """Ratio of two entries' times, round by round: median, least and greatest of wall time, median of CPU time."""
    pairs = list(zip(times[above], times[below], strict=True))
    found = [a.wall / b.wall for a, b in pairs]
    cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
    return {"median": statistics.median(found), "least": min(found), "greatest": max(found), "cpu_median": cpu}


def dtype_of(model: TokenModel) -> str:
    """Of a model's weights, by name."""
    return str(model.encoder.dtype).removeprefix("torch.")


def _padded_reader(unpruned: TokenModel, model: Any) -> Callable[[Ids], torch.Tensor]:
    """transformers' model with its own attention, on batches padded to their longest text."""
    pad, device = int(getattr(model.config, "pad_token_id", None) or 0), unpruned.encoder.device

    def read(texts: Ids) -> torch.Tensor:
        longest = max(map(len, texts))
        ids_BN = torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids in texts], device=device)
        lengths_B1 = torch.tensor([len(ids) for ids in texts], device=device)[:, None]
        mask_BN = (torch.arange(longest, device=device) < lengths_B1).long()
        with torch.inference_mode():
            logits: torch.Tensor = model(input_ids=ids_BN, attention_mask=mask_BN).logits
        return logits

    return read


def packed_reader(model: TokenModel, head_only: bool, *, fused: bool = True) -> Callable[[Ids], torch.Tensor]:
    """Our model on packed texts; packing them is part of its time."""

    def read(texts: Ids) -> torch.Tensor:
        with torch.inference_mode():
            batch = pack(texts, model.encoder.device)
            output = forward(model.encoder, batch, model.rule, model.convention, head_only=head_only, fused=fused)
        return output.logits_BC

    return read


def read_all(one: BenchEntry, ids: Ids, rows: int) -> None:
    """One turn: all texts, in batches of so many."""
    batches = scoring_batches(tuple(map(len, ids)), rows) if one.sorted else _batch_in_order(len(ids), rows)
    for indices in batches:
        one.read([ids[i] for i in indices])


def _batch_in_order(count: int, rows: int) -> list[tuple[int, ...]]:
    return [tuple(range(at, min(at + rows, count))) for at in range(0, count, rows)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
