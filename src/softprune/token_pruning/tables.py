"""The results of a run and of a bench, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softprune.errors import SoftpruneError
from softprune.runs.record import RunRecord, read_record
from softprune.runs.record_parts import ResultRow
from softprune.terminal import Table

BY_EXAMPLE = "intervals cover the sampling of texts, not of training seeds: models of other seeds may differ"
MACS = "MACs: share of the unpruned model's on the same real tokens (the paper's count; what was computed)"

_LABELS = {
    "constant": "best constant answer",
    "baseline": "unpruned model",
    "top-k": "top-k by importance",
    "manual": "thresholds, not learned",
    "first": "first tokens",
}


def read_results(run: Path) -> RunRecord:
    """run.json of a run of token pruning; a run of another kind is refused."""
    record = read_record(run, RunRecord)
    if record.kind != "tokens":
        found = f"a run of kind {record.kind}"
        raise SoftpruneError("a run of softprune tokens train", found, f"softprune report {run}")
    return record


def results_table(record: RunRecord) -> Table:
    """One row a model: quality, difference to the unpruned model, operations, tokens kept to the end."""
    task, selection = record.task, record.selection
    examples = "" if task.sizes is None else f", {task.sizes.report} examples of report"
    headings = ("95% CI", "macro F1", "to unpruned", "95% CI", "paper MACs", "executed MACs", "kept")
    table = _empty_table(
        f"{task.title}{examples}, in percent", task.metric or "score", *headings, title_justify="center"
    )
    rows = {name: row for name, row in record.results.items() if row is not None}
    # The constant answer, the unpruned model, the learned ones, their baselines.
    for name in sorted(rows, key=lambda name: (name != "constant", name != "baseline", not name.startswith("lambda"))):
        mark, style = (" *", "bold") if selection is not None and name == selection.chosen else ("", None)
        table.add_row(_label(name) + mark, *_result_cells(rows[name]), style=style)
    return table


def _empty_table(title: str, *names: str, title_justify: str = "left") -> Table:
    """A table with a column of names, and one of numbers for each of these headings."""
    table = Table(title=title, title_justify=title_justify)
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    return table


def _result_cells(row: ResultRow) -> list[str]:
    if row.interval is None or row.difference is None or row.kept is None:  # the constant answer
        return [_percent(row.value, ".1f"), *[""] * 7]
    low, high = (_percent(end, ".1f") for end in row.interval)
    kept = _percent(row.kept[-2:][0])  # before the last layer's pruning, which changes no logit
    against = _difference_cells(row.difference.value, row.difference.low, row.difference.high)
    macs = [_percent(row.paper_macs), _percent(row.executed_macs)]
    return [_percent(row.value, ".1f"), f"{low} to {high}", _percent(row.macro_f1, ".1f"), *against, *macs, kept]


def _difference_cells(value: float, low: float, high: float) -> list[str]:
    return [_percent(value, "+.1f"), f"{_percent(low, '+.1f')} to {_percent(high, '+.1f')}"]


def results_notes(record: RunRecord) -> list[str]:
    """The notes under a run's table."""
    selection, task = record.selection, record.task
    notes = []
    if selection is not None and selection.chosen and task.sizes is not None:
        why = "fewest operations within the margin" if selection.within else "none is within the margin; the best"
        notes.append(f"* chosen on {task.sizes.select} held-out examples of train: {why}")
    cut = task.cut_report
    if cut is not None and cut.examples:
        notes.append(f"{cut.examples} texts of report were longer than the limit: {cut.tokens} tokens were cut off")
    missed = {name: stage for name, stage in record.stages.items() if stage.macs_reached is False}
    if missed:
        target = next(iter(missed.values())).macs_target
        each = ", ".join(f"{_label(name)} {_percent(stage.relative_macs)}%" for name, stage in missed.items())
        note = f"not at the chosen model's operations, {_percent(target)}% on the held-out set: {each}"
        if any(stage.rate is not None for stage in missed.values()):
            note += "; the rules that keep a share of the tokens leave the first layers whole"
        notes.append(note)
    kept = "kept: tokens that the last layer reads; rules below the learned models were sought at the chosen one's MACs"
    return [*notes, BY_EXAMPLE, MACS, kept]


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("lambda-", "learned, lambda ").replace("random-", "random tokens, seed "))


def _percent(fraction: float | None, form: str = ".0f") -> str:
    return "" if fraction is None else format(100 * fraction, form)


def speed_table(found: Mapping[str, Any]) -> Table:
    """One row for each entry: accuracy, operations, examples per second, speed-up over the packed, unpruned model."""
    machine, settings = found["machine"], found["settings"]
    timed = min(settings["texts"], found["texts"]["count"])
    title = f"{timed} texts of {found['texts']['mean']:.0f} tokens on average, batches of {settings['rows']}, "
    title += f"{found['dtype']}, {machine['threads']} thread(s), {settings['rounds']} rounds"
    qualities = ("accuracy %", "to unpruned", "95% CI", "paper MACs %", "executed %")
    table = _empty_table(title, *qualities, "texts/s", "speed-up", "least to most", "of the MACs'")
    for row in found["rows"]:
        mark, style = (" *", "bold") if row["name"] == found["baseline"] else ("", None)
        share, speedup, per_second = row["of_the_operations"], row["speedup"], row["examples_per_second"]
        model = found["models"][row["model"]]
        accuracy, against = _percent(model["accuracy"], ".1f"), ["", ""]
        macs = [_percent(row["paper_macs"]), _percent(row["executed_macs"])]
        if row["kind"] == "padded":
            accuracy = ""
        elif row["kind"] == "pruned":
            against = _difference_cells(*(model["difference"][name] for name in ("value", "low", "high")))
        table.add_row(
            row["name"] + mark,
            accuracy,
            *against,
            *macs,
            f"{per_second:.3g}" if per_second < 1000 else f"{per_second:,.0f}",
            f"{speedup['median']:.2f}",
            f"{speedup['least']:.2f} to {speedup['greatest']:.2f}",
            "" if share is None else f"{share:.2f}",
            style=style,
        )
    return table


def latency_table(found: Mapping[str, Any]) -> Table:
    """Milliseconds of a batch: median and 95th percentile, by batch size."""
    sizes = found["settings"]["latency_rows"]
    table = _empty_table("latency of a batch in ms, texts as they come: p50 (p95)", *(f"batch {n}" for n in sizes))
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
    table = _empty_table("speed-up by input length in tokens (executed MACs %)", *map(str, lengths), "pays from")
    for model, begins in found["break_even"]["from"].items():
        mine = {row["length"]: row for row in rows if row["model"] == model}
        cells = (f"{mine[n]['speedup']['median']:.2f} ({100 * mine[n]['executed_macs']:.0f})" for n in lengths)
        table.add_row(model, *cells, "never" if begins is None else str(begins))
    return table


def bench_notes(found: Mapping[str, Any]) -> list[str]:
    """The notes under a bench's tables."""
    return [
        f"* the baseline of all ratios: {found['baseline']}, unpruned, the faster of its two attentions",
        BY_EXAMPLE,
        MACS,
        "of the MACs': measured speed-up over the one that executed MACs promise; at 1.00 nothing is lost",
        "head only: the last layer is computed for the head's token alone, which is no part of token pruning",
        "padded: transformers' own model, with its own attention",
    ]
