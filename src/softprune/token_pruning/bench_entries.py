"""Who takes part when models that drop tokens are timed, and how turns are taken."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch

from softprune.models.batching import scoring_batches
from softprune.token_pruning.forward import hard_pass
from softprune.token_pruning.model import TokenModel
from softprune.token_pruning.packing import pack

UNPRUNED = "unpruned"

Ids = Sequence[Sequence[int]]


class Spent(NamedTuple):
    """Seconds: of wall time, and of this process on all cores, which other programs slow less."""

    wall: float
    cpu: float


Times = dict[str, list[Spent]]
"""What everyone took, one figure a round."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who reads texts.

    Attributes:
        name: of its row.
        kind: "padded" (transformers' own model), "packed" (ours, unpruned) or "pruned".
        model: whose weights and rule; `UNPRUNED` or a pruned model's name.
        dtype: of the weights.
        sorted: whether texts of similar length share a batch.
        attention: "own", "fused" or "eager"; a pruned model's scored layers are eager in any case.
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
        """All but the function."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "read"}


def contestants(unpruned: TokenModel, models: Mapping[str, TokenModel]) -> list[Contestant]:
    """Everyone who takes part, in the order of the table."""
    dtype, own = dtype_of(unpruned), unpruned.anatomy.model
    wide = {} if dtype == "float32" else {"float32": copy.deepcopy(own).float()}
    found = [
        Contestant(f"padded, {how}, {name}", "padded", UNPRUNED, name, in_order, "own", False, _padded(unpruned, model))
        for name, model in {**wide, dtype: own}.items()
        for how, in_order in (("as they come", False), ("by length", True))
    ]
    for name, attention, head_only in (
        ("packed, fused", "fused", False),
        ("packed, eager", "eager", False),
        ("packed, head only", "fused", True),
    ):
        read = packed_reader(unpruned, head_only, fused=attention == "fused")
        found.append(Contestant(name, "packed", UNPRUNED, dtype, True, attention, head_only, read))
    for name, model in models.items():
        for head_only in (False, True):
            read = packed_reader(model, head_only)
            shown = f"{name}, head only" if head_only else name
            found.append(Contestant(shown, "pruned", name, dtype, True, "fused", head_only, read))
    return found


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> Times:
    """Let everyone take turns: one that isn't measured, then so many that are.

    Every round begins with somebody else: whoever comes behind a long turn finds other things in the caches.
    """
    for run in runs.values():
        run()
    names = list(runs)
    times: Times = {name: [] for name in names}
    for number in range(rounds):
        at = number % len(names)
        for name in (*names[at:], *names[:at]):
            times[name].append(spent(runs[name], device))
    return times


def spent(run: Callable[[], object], device: torch.device) -> Spent:
    """What a call took, a GPU's work included."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    _wait(device)
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def median(times: Times, name: str) -> float:
    """Seconds of wall time."""
    return statistics.median(each.wall for each in times[name])


def ratio(times: Times, above: str, below: str) -> dict[str, float]:
    """Of two contestants' times, round by round: median, least and greatest of wall time, median of CPU time."""
    pairs = list(zip(times[above], times[below], strict=True))
    found = [a.wall / b.wall for a, b in pairs]
    cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
    return {"median": statistics.median(found), "least": min(found), "greatest": max(found), "cpu_median": cpu}


def dtype_of(model: TokenModel) -> str:
    """Of a model's weights, by name."""
    return str(model.anatomy.dtype).removeprefix("torch.")


def _padded(unpruned: TokenModel, model: Any) -> Callable[[Ids], torch.Tensor]:
    """transformers' model with its own attention, on a batch padded to its longest text."""
    pad, device = int(getattr(model.config, "pad_token_id", None) or 0), unpruned.anatomy.device

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
    """Our model on texts laid end to end; laying them so is in its time."""

    def read(texts: Ids) -> torch.Tensor:
        with torch.inference_mode():
            batch = pack(texts, model.anatomy.device)
            found = hard_pass(model.anatomy, batch, model.rule, model.convention, head_only=head_only, fused=fused)
        return found.logits_BC

    return read


def read_all(one: Contestant, ids: Ids, rows: int) -> None:
    """A turn: all texts, in batches of so many."""
    batches = scoring_batches(tuple(map(len, ids)), rows) if one.sorted else _in_order(len(ids), rows)
    for indices in batches:
        one.read([ids[i] for i in indices])


def _in_order(count: int, rows: int) -> list[tuple[int, ...]]:
    return [tuple(range(at, min(at + rows, count))) for at in range(0, count, rows)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
