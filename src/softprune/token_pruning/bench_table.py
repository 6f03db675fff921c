"""What `bench` measured, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softprune.terminal import Table
from softprune.token_pruning.results_table import BY_EXAMPLE


def speed_table(found: Mapping[str, Any]) -> Table:
    """One row for each entry: accuracy, operations, examples per second, speed-up over the packed, unpruned model."""
    machine, settings = found["machine"], found["settings"]
    timed = min(settings["texts"], found["texts"]["count"])
    table = Table(
        title=f"{timed} texts of {found['texts']['mean']:.0f} tokens on average, batches of {settings['rows']}, "
        f"{found['dtype']}, {machine['threads']} thread(s), {settings['rounds']} rounds",
        title_justify="left",
    )
    table.add_column("")
    for name in ("accuracy %", "to unpruned", "95% CI", "paper MACs %", "executed %"):
        table.add_column(name, justify="right")
    for name in ("texts/s", "speed-up", "least to most", "of the MACs'"):
        table.add_column(name, justify="right")
    for row in found["rows"]:
        mark = " *" if row["name"] == found["baseline"] else ""
        table.add_row(row["name"] + mark, *_quality(found, row), *_speed(row), style="bold" if mark else None)
    return table


def latency_table(found: Mapping[str, Any]) -> Table:
    """Milliseconds of a batch: median and 95th percentile, by batch size."""
    sizes = found["settings"]["latency_rows"]
    table = Table(title="latency of a batch in ms, texts as they come: p50 (p95)", title_justify="left")
    table.add_column("")
    for rows in sizes:
        table.add_column(f"batch {rows}", justify="right")
    by_name: dict[str, dict[int, Mapping[str, float]]] = {}
    for each in found["latency"]:
        by_name.setdefault(each["name"], {})[each["rows"]] = each["ms"]
    for name, ms in by_name.items():
        table.add_row(name, *(f"{ms[rows]['p50']:.1f} ({ms[rows]['p95']:.1f})" for rows in sizes))
    return table


def break_even_table(found: Mapping[str, Any]) -> Table:
    """Speed-up by input length, and the share of operations there."""
    rows = found["break_even"]["rows"]
    lengths = sorted({row["length"] for row in rows})
    table = Table(title="speed-up by input length in tokens (executed MACs %)", title_justify="left")
    for name in ("", *map(str, lengths)):
        table.add_column(name, justify="right" if name else "left")
    table.add_column("pays from", justify="right")
    for model, begins in found["break_even"]["from"].items():
        mine = {row["length"]: row for row in rows if row["model"] == model}
        cells = (f"{mine[n]['speedup']['median']:.2f} ({100 * mine[n]['executed_macs']:.0f})" for n in lengths)
        table.add_row(model, *cells, "never" if begins is None else str(begins))
    return table


def bench_notes(found: Mapping[str, Any]) -> list[str]:
    """Notes below the tables."""
    return [
        f"* the baseline of all ratios: {found['baseline']}, unpruned, the faster of its two attentions",
        BY_EXAMPLE,
        "MACs: share of the unpruned model's on the same real tokens (the paper's count; what was computed)",
        "of the MACs': measured speed-up over the one that executed MACs promise; at 1.00 nothing is lost",
        "head only: the last layer is computed for the head's token alone, which is no part of token pruning",
        "padded: transformers' own model, with its own attention",
    ]


def _quality(found: Mapping[str, Any], row: Mapping[str, Any]) -> Sequence[str]:
    if row["kind"] == "padded":
        return [""] * 5
    model = found["models"][row["model"]]
    cells = [f"{100 * model['accuracy']:.1f}"]
    if row["kind"] == "pruned":
        against = model["difference"]
        cells += [f"{100 * against['value']:+.1f}", f"{100 * against['low']:+.1f} to {100 * against['high']:+.1f}"]
    else:
        cells += ["", ""]
    return [*cells, f"{100 * row['paper_macs']:.0f}", f"{100 * row['executed_macs']:.0f}"]


def _speed(row: Mapping[str, Any]) -> Sequence[str]:
    speedup, share = row["speedup"], row["of_the_operations"]
    return [
        f"{row['examples_per_second']:.3g}"
        if row["examples_per_second"] < 1000
        else f"{row['examples_per_second']:,.0f}",
        f"{speedup['median']:.2f}",
        f"{speedup['least']:.2f} to {speedup['greatest']:.2f}",
        "" if share is None else f"{share:.2f}",
    ]
