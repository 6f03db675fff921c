"""How much faster a model is for dropping tokens, and what that costs in accuracy.

The baseline of all ratios is the packed, unpruned model in the same dtype with its faster attention: leaving out
padding is no merit of pruning. Entries take turns in one process, and ratios are taken within a round, so that whatever
else the machine does affects all of them alike. Computing the last layer for the head's token alone is shown
separately: that shortcut drops no token.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from softprune.errors import SoftpruneError
from softprune.runs.environment import hardware, versions
from softprune.statistics.bootstrap import RESAMPLES, paired_bootstrap
from softprune.statistics.estimates import difference_row
from softprune.token_pruning.bench_entries import (
    UNPRUNED,
    BenchEntry,
    Ids,
    Times,
    alternate,
    dtype_of,
    make_entries,
    median,
    packed_reader,
    ratio,
    read_all,
    time_call,
)
from softprune.token_pruning.evaluation import Predictions, evaluate
from softprune.token_pruning.model import TokenModel

SCHEMA = 1
LENGTHS = (16, 32, 64, 128, 256, 512)
"""Input lengths at which break-even is looked for, in tokens."""
LATENCY_ROWS = (1, 8, 32)
MOST_TEXTS = 320
"""Texts that latency is measured with, at each batch size."""
TOKENS_A_LENGTH = 4096
"""Tokens in the texts of one length, about."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured, and how often.

    Attributes:
        rounds: how often every entry runs over the timed texts.
        texts: how many are timed; accuracy and operations are of all.
        rows: texts of a batch.
        calls: largest number of batches of each size whose latency is measured; fewer of large ones, but at least 10.
        lengths: input lengths at which break-even is looked for.
        latency_rows: batch sizes for latency.
        seed: of the sample of timed texts, and of the resampling.
    """

    rounds: int = 5
    texts: int = 64
    rows: int = 32
    calls: int = 40
    lengths: tuple[int, ...] = LENGTHS
    latency_rows: tuple[int, ...] = LATENCY_ROWS
    seed: int = 0


def bench(
    unpruned: TokenModel,
    models: Mapping[str, TokenModel],
    ids: Ids,
    golds: Sequence[int],
    settings: Settings | None = None,
    watch: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure.

    Args:
        unpruned: the model without pruning.
        models: pruned models, by name, on the same device and in the same dtype.
        ids: token ids of the texts, with special tokens (`TokenModel.encode`).
        golds: their classes.
        settings: what to measure; None for the defaults.
        watch: called with what is being measured.

    Returns:
        What `bench_table` shows and `report.speed` draws; JSON can hold it.

    Raises:
        SoftpruneError: without texts, or with models that differ in device or dtype.
    """
    settings = settings or Settings()
    _check(unpruned, models, ids, golds)
    for each in (unpruned, *models.values()):
        each.encoder.model.eval()
    watch(f"accuracy and operations on {len(ids)} texts")
    predictions = {name: _evaluate(each, ids) for name, each in {UNPRUNED: unpruned, **models}.items()}
    order = np.random.default_rng(settings.seed).permutation(len(ids))[: settings.texts].tolist()
    timed = [ids[i] for i in order]
    entries = {one.name: one for one in make_entries(unpruned, models)}
    watch(f"speed: {len(entries)} entries over {len(timed)} texts, {settings.rounds} rounds")
    runs = {name: partial(read_all, one, timed, settings.rows) for name, one in entries.items()}
    times = alternate(runs, settings.rounds, unpruned.encoder.device)
    baseline = min(("packed, fused", "packed, eager"), key=lambda name: median(times, name))
    watch(f"latency: batches of {', '.join(map(str, settings.latency_rows))}")
    delays = {rows: _latency(entries, baseline, timed, rows, settings) for rows in settings.latency_rows}
    watch(f"break-even: texts of {', '.join(map(str, settings.lengths))} tokens")
    lengths = sorted(map(len, ids))
    return {
        "schema": SCHEMA,
        "kind": "tokens bench",
        "machine": hardware() | {"threads": torch.get_num_threads(), "device": str(unpruned.encoder.device)},
        "versions": versions(),
        "dtype": dtype_of(unpruned),
        "settings": asdict(settings),
        "texts": {"count": len(ids), "mean": sum(lengths) / len(ids), "median": statistics.median(lengths)},
        "models": {
            name: _quality(each, predictions[UNPRUNED], golds, unpruned, settings) for name, each in predictions.items()
        },
        "baseline": baseline,
        "rows": [
            _row(one, times, baseline, unpruned, _select(predictions[one.model], order)) for one in entries.values()
        ],
        "latency": [
            {"name": name, "rows": rows, "ms": found} for rows, each in delays.items() for name, found in each.items()
        ],
        "break_even": _break_even(unpruned, models, ids, settings),
    }


def _evaluate(model: TokenModel, ids: Ids) -> Predictions:
    return evaluate(model.encoder, ids, model.rule, model.convention, compute=model.encoder.dtype)


def cut_texts(ids: Ids, length: int, count: int) -> list[list[int]]:
    """Texts of exactly that many tokens, cut from all texts joined: the first and last token are those of a text."""
    inner = [token for text in ids for token in text[1:-1]]
    first, last = ids[0][0], ids[0][-1]
    size = length - 2
    texts = []
    for number in range(count):
        begin = number * size % max(1, len(inner))
        cut = [inner[(begin + place) % len(inner)] for place in range(size)]
        texts.append([first, *cut, last])
    return texts


def _quality(
    answers: Predictions, unpruned: Predictions, golds: Sequence[int], model: TokenModel, settings: Settings
) -> dict[str, Any]:
    """Accuracy, its difference to the unpruned model, operations, tokens kept after each layer."""
    right, before = (_right(each, golds) for each in (answers, unpruned))
    against = paired_bootstrap(right, before, lambda sums: sums[..., 0] / sums[..., 1], seed=settings.seed)
    return {
        "accuracy": float(right[:, 0].mean()),
        "difference": difference_row(against),
        "resamples": RESAMPLES,
        "paper_macs": answers.relative_macs(model.encoder),
        "executed_macs": answers.relative_macs(model.encoder, executed=True),
        "kept": answers.kept(),
    }


def _right(answers: Predictions, golds: Sequence[int]) -> npt.NDArray[np.float64]:
    correct = np.asarray(answers.predicted) == np.asarray(golds)
    return np.stack([correct, np.ones(len(correct))], axis=1).astype(np.float64)


def _row(one: BenchEntry, times: Times, baseline: str, model: TokenModel, answers: Predictions) -> dict[str, Any]:
    """Speed of an entry, and its operations on the timed texts."""
    speedup = ratio(times, baseline, one.name)
    row = one.facts() | {
        "examples_per_second": len(answers.lengths) / median(times, one.name),
        "seconds": [each.wall for each in times[one.name]],
        "cpu_seconds": [each.cpu for each in times[one.name]],
        "speedup": speedup,
        "paper_macs": None,
        "executed_macs": None,
        "of_the_operations": None,
    }
    if one.kind != "padded":  # which computes on padding, too
        paper, executed = _macs(model, answers, head_only=one.head_only)
        row |= {"paper_macs": paper, "executed_macs": executed, "of_the_operations": speedup["median"] * executed}
    return row


def _macs(model: TokenModel, answers: Predictions, *, head_only: bool = False) -> tuple[float, float]:
    """Operations over those of the same texts unpruned: the paper's count, and what was computed."""
    executed = answers.relative_macs(model.encoder, executed=True, head_only=head_only)
    return answers.relative_macs(model.encoder), executed


def _select(answers: Predictions, order: Sequence[int]) -> Predictions:
    rows, lengths = list(order), tuple(answers.lengths[i] for i in order)
    return Predictions(answers.logits_NC[rows], answers.kept_NL[rows], answers.first_N[rows], lengths)


def _latency(
    entries: Mapping[str, BenchEntry], baseline: str, ids: Ids, rows: int, settings: Settings
) -> dict[str, dict[str, float]]:
    """Milliseconds of a call with `rows` unsorted texts: median and 95th percentile."""
    # Sorting needs all texts beforehand, and of the two attentions of the unpruned model the faster one is enough.
    slower = {"packed, fused", "packed, eager"} - {baseline}
    names = [
        one.name for one in entries.values() if one.name not in slower and not (one.kind == "padded" and one.sorted)
    ]
    calls = min(settings.calls, max(10, MOST_TEXTS // rows))
    batches = [[ids[(number * rows + i) % len(ids)] for i in range(rows)] for number in range(calls)]
    device = torch.device(next(iter(entries.values())).read(batches[0]).device)
    times: Times = {name: [] for name in names}
    for name in names:
        entries[name].read(batches[0])
    for batch in batches:
        for name in names:
            times[name].append(time_call(partial(entries[name].read, batch), device))
    milliseconds = {}
    for name, spent in times.items():
        p50, p95 = 1000 * np.quantile([each.wall for each in spent], [0.5, 0.95])
        milliseconds[name] = {"p50": float(p50), "p95": float(p95)}
    return milliseconds


def _break_even(unpruned: TokenModel, models: Mapping[str, TokenModel], ids: Ids, settings: Settings) -> dict[str, Any]:
    """Speed-up by input length, and the length from which on pruning pays."""
    rows: list[dict[str, Any]] = []
    for length in (n for n in settings.lengths if n <= unpruned.max_length):
        count = min(settings.rows, max(4, TOKENS_A_LENGTH // length))
        texts = cut_texts(ids, length, count)
        runs: dict[str, Callable[[], object]] = {
            attention: partial(packed_reader(unpruned, False, fused=attention == "fused"), texts)
            for attention in ("fused", "eager")
        }
        runs |= {name: partial(packed_reader(model, False), texts) for name, model in models.items()}
        times = alternate(runs, settings.rounds, unpruned.encoder.device)
        best = min(("fused", "eager"), key=lambda name: median(times, name))
        for name, model in models.items():
            paper, executed = _macs(model, _evaluate(model, texts))
            rows.append(
                {
                    "model": name,
                    "length": length,
                    "attention": best,
                    "speedup": ratio(times, best, name),
                    "unpruned_ms": 1000 * median(times, best) / count,
                    "pruned_ms": 1000 * median(times, name) / count,
                    "paper_macs": paper,
                    "executed_macs": executed,
                }
            )
    return {"rows": rows, "from": {name: _pays_from([r for r in rows if r["model"] == name]) for name in models}}


def _pays_from(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The shortest length from which on the median speed-up is above one; None if it never is."""
    shortest = None
    for row in sorted(rows, key=lambda row: -row["length"]):
        if row["speedup"]["median"] <= 1:
            break
        shortest = int(row["length"])
    return shortest


def _check(unpruned: TokenModel, models: Mapping[str, TokenModel], ids: Ids, golds: Sequence[int]) -> None:
    if not ids or len(ids) != len(golds):
        found = f"{len(ids)} texts and {len(golds)} classes"
        raise SoftpruneError("texts with their classes", found, "give a set that isn't empty")
    wanted = (unpruned.encoder.device, unpruned.encoder.dtype)
    for name, model in models.items():
        if (model.encoder.device, model.encoder.dtype) != wanted:
            found = f"{name} on {model.encoder.device} in {model.encoder.dtype}"
            do = "load all with the same device and dtype"
            raise SoftpruneError(f"models on {wanted[0]} in {wanted[1]}", found, do)
