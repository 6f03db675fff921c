"""How much faster a model is for dropping tokens, and what that costs in accuracy.

The baseline of all ratios is the packed, unpruned model in the same dtype with its faster attention: leaving out
padding is no merit of pruning. Entries take turns, and ratios are taken within a round, so that whatever else the
machine does affects all of them alike.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, cycle, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from softprune.data import answered
from softprune.data.metrics import metric_named
from softprune.errors import SoftpruneError
from softprune.models.batching import scoring_batches
from softprune.runs.record import hardware, versions
from softprune.statistics.bootstrap import RESAMPLES, paired_bootstrap
from softprune.statistics.estimates import difference_row
from softprune.token_pruning.experiment import BASELINE
from softprune.token_pruning.forward import Predictions, forward
from softprune.token_pruning.model import MODELS, TokenModel
from softprune.token_pruning.packing import pack

MOST_TEXTS = 320  # that latency is measured with, at each batch size
TOKENS_A_LENGTH = 4096  # in all texts of one length, about
UNPRUNED = "unpruned"
PACKED = ("packed, fused", "packed, eager")  # the unpruned model with each attention; the faster one is the baseline
Ids = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured, and how often."""

    rounds: int = 5  # how often every entry runs over the timed texts
    texts: int = 64  # how many are timed; accuracy and operations are of all
    rows: int = 32  # texts of a batch
    calls: int = 40  # most batches of each size whose latency is measured; fewer of large ones, but at least 10
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)  # input lengths at which break-even is looked for, in tokens
    latency_rows: tuple[int, ...] = (1, 8, 32)  # batch sizes for latency
    seed: int = 0  # of the sample of timed texts, and of the resampling


@dataclass(frozen=True, slots=True)
class BenchEntry:
    """One way to run a model."""

    name: str  # of its row
    kind: str  # "padded" (transformers' own model), "packed" (ours, unpruned) or "pruned"
    model: str  # whose weights and rule; `UNPRUNED` or a pruned model's name
    dtype: str  # of the weights
    sorted: bool  # whether texts of similar length share a batch
    attention: str  # "own", "fused" or "eager"; layers of a pruned model that need scores are eager in any case
    head_only: bool  # whether the last layer is computed for the head's token alone: a shortcut that drops no token
    read: Callable[[Ids], torch.Tensor]  # a batch of token ids to logits `[B, C]`


class Spent(NamedTuple):
    """Seconds that a call took."""

    wall: float
    cpu: float  # of this process on all cores, which other programs disturb less


Times = dict[str, list[Spent]]
"""What each entry took in each round, by name."""


def bench(
    unpruned: TokenModel,
    models: Mapping[str, TokenModel],
    ids: Ids,
    golds: Sequence[int],
    settings: Settings,
    watch: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure pruned models, by name, against the unpruned one on texts as `TokenModel.encode` gives them.

    `watch` is called with what is being measured. Returns what `tables` shows and `report.speed` draws, as JSON has it.

    Raises:
        SoftpruneError: without texts, or with models that differ in device or dtype.
    """
    if not ids or len(ids) != len(golds):
        found = f"{len(ids)} texts and {len(golds)} classes"
        raise SoftpruneError("texts with their classes", found, "give a set that isn't empty")
    wanted = (unpruned.encoder.device, unpruned.encoder.dtype)
    for name, model in models.items():
        if (model.encoder.device, model.encoder.dtype) != wanted:
            found = f"{name} on {model.encoder.device} in {model.encoder.dtype}"
            do = "load all with the same device and dtype"
            raise SoftpruneError(f"models on {wanted[0]} in {wanted[1]}", found, do)
    watch(f"accuracy and operations on {len(ids)} texts")
    predictions = {name: each.evaluate(ids) for name, each in {UNPRUNED: unpruned, **models}.items()}
    qualities = {}
    for name, each in predictions.items():
        qualities[name] = _quality(each, predictions[UNPRUNED], golds, unpruned, settings.seed)
    order = np.random.default_rng(settings.seed).permutation(len(ids))[: settings.texts].tolist()
    timed = [ids[i] for i in order]
    entries = {entry.name: entry for entry in make_entries(unpruned, models)}
    watch(f"speed: {len(entries)} entries over {len(timed)} texts, {settings.rounds} rounds")
    runs = {name: partial(read_all, entry, timed, settings.rows) for name, entry in entries.items()}
    times = alternate(runs, settings.rounds, unpruned.encoder.device)
    baseline = min(PACKED, key=lambda name: median(times, name))
    timed_predictions, lengths = {}, tuple(map(len, timed))  # operations and speed must be of the same texts
    for name, each in predictions.items():
        timed_predictions[name] = Predictions(each.logits_NC[order], each.kept_NL[order], each.first_N[order], lengths)
    rows = [_speed_row(each, times, baseline, unpruned, timed_predictions[each.model]) for each in entries.values()]
    watch(f"latency: batches of {', '.join(map(str, settings.latency_rows))}")
    latency = []
    for size in settings.latency_rows:
        latency += _latency(entries, baseline, timed, size, settings.calls, unpruned.encoder.device)
    watch(f"break-even: texts of {', '.join(map(str, settings.lengths))} tokens")
    sizes = sorted(map(len, ids))
    return {
        "schema": 1,
        "kind": "tokens bench",
        "machine": hardware() | {"threads": torch.get_num_threads(), "device": str(unpruned.encoder.device)},
        "versions": versions(),
        "dtype": _dtype_name(unpruned),
        "settings": asdict(settings),
        "texts": {"count": len(ids), "mean": sum(sizes) / len(ids), "median": statistics.median(sizes)},
        "models": qualities,
        "baseline": baseline,
        "rows": rows,
        "latency": latency,
        "break_even": _break_even(entries, unpruned, models, ids, settings),
    }


def _quality(
    answers: Predictions, unpruned: Predictions, golds: Sequence[int], model: TokenModel, seed: int
) -> dict[str, Any]:
    """Accuracy, its difference to the unpruned model, operations, tokens kept after each layer."""
    accuracy, scores = metric_named("accuracy"), answered(answers.predicted, golds)
    others = accuracy.counts(answered(unpruned.predicted, golds))
    against = paired_bootstrap(accuracy.counts(scores), others, accuracy.score, seed=seed)
    return {
        "accuracy": accuracy.value(scores),
        "difference": difference_row(against),
        "resamples": RESAMPLES,
        "paper_macs": answers.relative_macs(model.encoder),
        "executed_macs": answers.relative_macs(model.encoder, executed=True),
        "kept": answers.kept(),
    }


def make_entries(unpruned: TokenModel, models: Mapping[str, TokenModel]) -> list[BenchEntry]:
    """All entries, in the order of the table."""
    dtype, entries = _dtype_name(unpruned), []
    padded = {dtype: unpruned.encoder.model}
    if dtype != "float32":  # what most users run today
        padded = {"float32": copy.deepcopy(unpruned.encoder.model).float()} | padded
    for name, model in padded.items():
        read = partial(_read_padded, model, unpruned.encoder.device)
        padded_entry = BenchEntry(f"padded, as they come, {name}", "padded", UNPRUNED, name, False, "own", False, read)
        entries += [padded_entry, replace(padded_entry, name=f"padded, by length, {name}", sorted=True)]
    ways = [(name, "packed", UNPRUNED, unpruned, name.removeprefix("packed, "), False) for name in PACKED]
    ways.append(("packed, head only", "packed", UNPRUNED, unpruned, "fused", True))
    for name, each in models.items():
        ways.append((name, "pruned", name, each, "fused", False))
        ways.append((f"{name}, head only", "pruned", name, each, "fused", True))
    for shown, kind, name, each, attention, head_only in ways:
        read = partial(_read_packed, each, head_only=head_only, fused=attention == "fused")
        entries.append(BenchEntry(shown, kind, name, dtype, True, attention, head_only, read))
    return entries


def _dtype_name(model: TokenModel) -> str:
    return str(model.encoder.dtype).removeprefix("torch.")


@torch.inference_mode()
def _read_padded(model: Any, device: torch.device, texts: Ids) -> torch.Tensor:
    """transformers' model with its own attention, on batches padded to their longest text."""
    pad, longest = int(getattr(model.config, "pad_token_id", None) or 0), max(map(len, texts))
    ids_BN = torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids in texts], device=device)
    lengths_B1 = torch.tensor([len(ids) for ids in texts], device=device)[:, None]
    mask_BN = (torch.arange(longest, device=device) < lengths_B1).long()
    logits: torch.Tensor = model(input_ids=ids_BN, attention_mask=mask_BN).logits
    return logits


@torch.inference_mode()
def _read_packed(model: TokenModel, texts: Ids, *, head_only: bool, fused: bool) -> torch.Tensor:
    """Our model on packed texts; packing them is part of its time."""
    batch = pack(texts, model.encoder.device)
    output = forward(model.encoder, batch, model.rule, model.convention, head_only=head_only, fused=fused)
    return output.logits_BC


def read_all(one: BenchEntry, ids: Ids, rows: int) -> None:
    """One turn: all texts, in batches of so many."""
    batches = [tuple(range(at, min(at + rows, len(ids)))) for at in range(0, len(ids), rows)]
    if one.sorted:
        batches = scoring_batches(tuple(map(len, ids)), rows)
    for indices in batches:
        one.read([ids[i] for i in indices])


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
            times[name].append(_time_call(runs[name], device))
    return times


def _time_call(run: Callable[[], object], device: torch.device) -> Spent:
    """What a call took, including the work of a GPU."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if on_gpu:  # calls return before the GPU is done
        torch.cuda.synchronize(device)
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def median(times: Times, name: str) -> float:
    """Seconds of wall time."""
    return statistics.median(each.wall for each in times[name])


def ratio(times: Times, above: str, below: str) -> dict[str, float]:
    """Ratio of two entries' times, round by round: median, least and greatest of wall time, median of CPU time."""
    pairs = list(zip(times[above], times[below], strict=True))
    wall = [a.wall / b.wall for a, b in pairs]
    cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
    return {"median": statistics.median(wall), "least": min(wall), "greatest": max(wall), "cpu_median": cpu}


def _speed_row(one: BenchEntry, times: Times, baseline: str, model: TokenModel, answers: Predictions) -> dict[str, Any]:
    """Speed of an entry, and its operations on the timed texts."""
    speedup = ratio(times, baseline, one.name)
    fields = ("name", "kind", "model", "dtype", "sorted", "attention", "head_only")
    row: dict[str, Any] = {name: getattr(one, name) for name in fields} | {
        "examples_per_second": len(answers.lengths) / median(times, one.name),
        "seconds": [each.wall for each in times[one.name]],
        "cpu_seconds": [each.cpu for each in times[one.name]],
        "speedup": speedup,
        "paper_macs": None,
        "executed_macs": None,
        "of_the_operations": None,
    }
    if one.kind != "padded":  # which computes on padding, too
        executed = answers.relative_macs(model.encoder, executed=True, head_only=one.head_only)
        row["paper_macs"], row["executed_macs"] = answers.relative_macs(model.encoder), executed
        row["of_the_operations"] = speedup["median"] * executed
    return row


def _latency(
    entries: Mapping[str, BenchEntry], baseline: str, ids: Ids, rows: int, most_calls: int, device: torch.device
) -> list[dict[str, Any]]:
    """Milliseconds of a call with `rows` unsorted texts, by entry: median and 95th percentile."""
    times: Times = {}
    for name, entry in entries.items():
        # Sorting needs all texts beforehand, and of the two attentions of the unpruned model the faster one is enough.
        if (name not in PACKED or name == baseline) and not (entry.kind == "padded" and entry.sorted):
            times[name] = []
            entry.read([ids[i % len(ids)] for i in range(rows)])  # warm up
    texts = cycle(ids)  # from the beginning again where there are too few
    for _ in range(min(most_calls, max(10, MOST_TEXTS // rows))):  # a 95th percentile of fewer than 10 means nothing
        batch = list(islice(texts, rows))
        for name, spent in times.items():
            spent.append(_time_call(partial(entries[name].read, batch), device))
    measured = []
    for name, spent in times.items():
        p50, p95 = 1000 * np.quantile([each.wall for each in spent], [0.5, 0.95])
        measured.append({"name": name, "rows": rows, "ms": {"p50": float(p50), "p95": float(p95)}})
    return measured


def _break_even(
    entries: Mapping[str, BenchEntry],
    unpruned: TokenModel,
    models: Mapping[str, TokenModel],
    ids: Ids,
    settings: Settings,
) -> dict[str, Any]:
    """Speed-up by input length, and the length from which on pruning pays."""
    rows: list[dict[str, Any]] = []
    for length in (n for n in settings.lengths if n <= unpruned.max_length):
        count = min(settings.rows, max(4, TOKENS_A_LENGTH // length))
        texts = cut_texts(ids, length, count)
        runs = {name: partial(entries[name].read, texts) for name in (*PACKED, *models)}
        times = alternate(runs, settings.rounds, unpruned.encoder.device)
        best = min(PACKED, key=lambda name: median(times, name))
        for name, model in models.items():
            answers = model.evaluate(texts)
            row = {
                "model": name,
                "length": length,
                "attention": entries[best].attention,
                "speedup": ratio(times, best, name),
                "unpruned_ms": 1000 * median(times, best) / count,
                "pruned_ms": 1000 * median(times, name) / count,
                "paper_macs": answers.relative_macs(model.encoder),
                "executed_macs": answers.relative_macs(model.encoder, executed=True),
            }
            rows.append(row)
    begins = {}
    for name in models:
        begins[name] = pays_from([row for row in rows if row["model"] == name])
    return {"rows": rows, "from": begins}


def cut_texts(ids: Ids, length: int, count: int) -> list[list[int]]:
    """Texts of exactly that many tokens, cut from all texts joined: the first and last token are those of a text."""
    inner = cycle(chain.from_iterable(text[1:-1] for text in ids))  # special tokens belong to a text's ends only
    return [[ids[0][0], *islice(inner, length - 2), ids[0][-1]] for _ in range(count)]


def pays_from(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The shortest length from which on the median speed-up is above one; None if it never is."""
    longest_first = sorted(rows, key=lambda row: -row["length"])
    paying = takewhile(lambda row: row["speedup"]["median"] > 1, longest_first)
    return min((int(row["length"]) for row in paying), default=None)


def load_models(path: Path, device: str, dtype: str) -> tuple[TokenModel, dict[str, TokenModel]]:
    """The unpruned model of a run and its pruned ones; of a single model, itself without and with its rule."""
    load = partial(TokenModel.load, device=device, dtype=dtype)
    if not (path / MODELS / BASELINE).exists():
        loaded = load(path)
        return loaded.unpruned(), {loaded.name: loaded}
    folders = sorted(folder for folder in (path / MODELS).iterdir() if not folder.name.startswith("."))
    models = {folder.name: load(folder) for folder in folders}
    return models.pop(BASELINE), models
