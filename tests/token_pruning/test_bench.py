"""Measuring: who takes part, that all read the same, turns and ratios, and what is written of it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from encoders import INNER, LAYERS, LONGEST, OURS, encoder_of, gap, mixed, texts_of, thresholds
from rich.console import Console

from softprune.errors import SoftpruneError
from softprune.report.mpl_style import DARK, LIGHT, render
from softprune.report.speed import draw_speed, places
from softprune.token_pruning.bench import (
    UNPRUNED,
    Settings,
    Spent,
    alternate,
    bench,
    cut_texts,
    make_entries,
    pays_from,
    ratio,
    read_all,
)
from softprune.token_pruning.forward import executed_macs, forward
from softprune.token_pruning.model import TokenModel
from softprune.token_pruning.packing import pack
from softprune.token_pruning.rules import KeepAll
from softprune.token_pruning.tables import bench_notes, break_even_table, latency_table, speed_table

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL = Settings(rounds=2, texts=6, rows=4, calls=3, lengths=(8, 16, 512), latency_rows=(1, 2))


def model_of(theta: float | None, dtype: torch.dtype = torch.float32) -> TokenModel:
    rule = KeepAll() if theta is None else thresholds(OURS, theta)
    return TokenModel("tiny", encoder_of("bert", dtype), None, rule, OURS, LONGEST)


def texts() -> tuple[list[list[int]], list[int]]:
    ids = texts_of(mixed(12, seed=3), seed=3)
    return ids, [n % 3 for n in range(12)]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    ids, golds = texts()
    said: list[str] = []
    result = bench(
        model_of(None), {"lambda-0.1": model_of(1.0), "lambda-0.01": model_of(0.6)}, ids, golds, SMALL, said.append
    )
    assert len(said) == 4
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_everyone_unpruned_reads_the_same(dtype: torch.dtype) -> None:
    """Whom the ratios compare must give the same answers; the pruned ones must not."""
    unpruned, pruned = model_of(None, dtype), model_of(1.0, dtype)
    ids, _ = texts()
    everyone = {one.name: one for one in make_entries(unpruned, {"pruned": pruned})}
    wanted = everyone["packed, fused"].read(ids)
    for name, one in everyone.items():
        same = gap(one.read(ids), wanted) <= 1e-5
        assert same == (one.kind != "pruned"), name
    assert gap(everyone["pruned"].read(ids), everyone["pruned, head only"].read(ids)) <= 1e-5
    padded = [one for one in everyone.values() if one.kind == "padded"]
    assert len(padded) == (2 if dtype == torch.float32 else 4)
    assert {one.dtype for one in padded} == {"float32", str(dtype).removeprefix("torch.")}


def test_padded_batches_come_sorted_or_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, _ = texts()
    seen: dict[str, list[int]] = {}
    for one in make_entries(model_of(None), {}):
        lengths: list[int] = []

        def read(batch: Any, lengths: list[int] = lengths) -> torch.Tensor:
            lengths += list(map(len, batch))
            return torch.zeros(0)

        object.__setattr__(one, "read", read)
        read_all(one, ids, 5)
        seen[one.name] = lengths
    natural = list(map(len, ids))
    assert seen["padded, as they come, float32"] == natural
    for name in ("padded, by length, float32", "packed, fused", "packed, eager", "packed, head only"):
        assert seen[name] == sorted(natural)
    assert natural != sorted(natural)


def test_eager_is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    own = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention", lambda *a, **k: calls.append(1) or own(*a, **k)
    )
    everyone = {one.name: one for one in make_entries(model_of(None), {"pruned": model_of(1.0)})}
    ids = texts_of([9])
    counts = {}
    for name in ("packed, fused", "packed, eager", "packed, head only", "pruned", "pruned, head only"):
        calls.clear()
        everyone[name].read(ids)
        counts[name] = len(calls)
    # The first layer of a pruned model needs no scores; the head's token alone is read fused.
    assert list(counts.values()) == [LAYERS, 0, LAYERS, 1, 2]


def test_turns_and_ratios_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    times = alternate({name: lambda name=name: order.append(name) for name in "abc"}, 2, CPU)  # type: ignore[misc]
    assert "".join(order) == "abc" + "abc" + "bca"
    assert {name: len(found) for name, found in times.items()} == {"a": 2, "b": 2, "c": 2}
    measured = {"a": [Spent(4, 1), Spent(9, 2), Spent(1, 3)], "b": [Spent(2, 1), Spent(3, 1), Spent(4, 1)]}
    assert ratio(measured, "a", "b") == {"median": 2, "least": 0.25, "greatest": 3, "cpu_median": 2}


def test_texts_of_one_length() -> None:
    ids = [[3, 10, 11, 12, 4], [3, 20, 21, 4]]
    assert cut_texts(ids, 4, 3) == [[3, 10, 11, 4], [3, 12, 20, 4], [3, 21, 10, 4]]
    assert all(len(text) == 30 for text in cut_texts(ids, 30, 5))  # longer than all there is: it comes again


def test_break_even_is_the_shortest_that_pays_from_there_on() -> None:
    def rows(*speedups: float) -> list[dict[str, Any]]:
        return [{"length": 16 << n, "speedup": {"median": speed}} for n, speed in enumerate(speedups)]

    assert pays_from(rows(0.9, 1.1, 1.2)) == 32
    assert pays_from(rows(1.1, 0.9, 1.2)) == 64
    assert pays_from(rows(1.1, 1.2, 0.9)) is None
    assert pays_from(rows(1.1, 1.2, 1.3)) == 16


def test_figures_of_the_models(found: dict[str, Any]) -> None:
    ids, golds = texts()
    pruned = model_of(1.0)
    kept, right = [], 0
    for text, gold in zip(ids, golds, strict=True):  # each alone
        read = forward(pruned.encoder, pack([text]), pruned.rule, OURS)
        kept.append([kept_B[0] for kept_B in read.kept_LB])
        right += int(read.logits_BC.argmax()) == gold
    row = found["models"]["lambda-0.1"]
    assert row["accuracy"] == pytest.approx(right / 12)
    whole = sum(executed_macs(32, INNER, [len(text)], [[len(text)] * LAYERS]) for text in ids)
    part = sum(executed_macs(32, INNER, [len(text)], [kept[i]]) for i, text in enumerate(ids))
    assert row["executed_macs"] == pytest.approx(part / whole)
    assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
    assert row["difference"]["value"] == pytest.approx(row["accuracy"] - found["models"][UNPRUNED]["accuracy"])
    assert found["models"][UNPRUNED]["paper_macs"] == 1
    assert found["models"][UNPRUNED]["difference"]["value"] == 0


def test_rows_hold_together(found: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [
        "padded, as they come, float32",
        "padded, by length, float32",
        "packed, fused",
        "packed, eager",
        "packed, head only",
        "lambda-0.1",
        "lambda-0.1, head only",
        "lambda-0.01",
        "lambda-0.01, head only",
    ]
    base = rows[found["baseline"]]
    assert base["speedup"] == {"median": 1, "least": 1, "greatest": 1, "cpu_median": 1}
    assert base["executed_macs"] == 1
    for row in rows.values():
        assert row["examples_per_second"] == pytest.approx(6 / np.median(row["seconds"]))
        if row["kind"] == "padded":
            assert row["executed_macs"] is None
            continue
        assert row["of_the_operations"] == pytest.approx(row["speedup"]["median"] * row["executed_macs"])
    assert rows["lambda-0.1"]["executed_macs"] < rows["lambda-0.01"]["executed_macs"] < 1
    assert rows["lambda-0.1, head only"]["executed_macs"] < rows["lambda-0.1"]["executed_macs"]
    assert rows["lambda-0.1, head only"]["paper_macs"] == rows["lambda-0.1"]["paper_macs"]
    assert rows["packed, head only"]["paper_macs"] == 1
    assert json.loads(json.dumps(found, allow_nan=False))["baseline"] == found["baseline"]


def test_latency_and_break_even(found: dict[str, Any]) -> None:
    names = {each["name"] for each in found["latency"]}
    assert "padded, by length, float32" not in names  # a batch as it comes is not sorted
    assert found["baseline"] in names
    assert len(names) == 7
    assert all(0 < each["ms"]["p50"] <= each["ms"]["p95"] for each in found["latency"])
    rows = found["break_even"]["rows"]
    assert sorted({row["length"] for row in rows}) == [8, 16]  # the model reads no 512
    assert all(row["attention"] in ("fused", "eager") and 0 < row["executed_macs"] <= 1 for row in rows)
    assert set(found["break_even"]["from"]) == {"lambda-0.1", "lambda-0.01"}


def test_tables_show_it(found: dict[str, Any]) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    for table in (speed_table(found), latency_table(found), break_even_table(found)):
        console.print(table)
    text = console.export_text()
    assert f"{found['baseline']} *" in text
    assert "lambda-0.1, head only" in text
    assert f"{100 * found['models']['lambda-0.1']['accuracy']:.1f}" in text
    assert "batch 2" in text
    assert found["baseline"] in bench_notes(found)[0]


def test_figure(found: dict[str, Any]) -> None:
    shown = places(found)
    assert len([place for place in shown if place.role == "packed"]) == 1
    assert {place.role for place in shown} == {"padded", "packed", "pruned", "head only"}
    assert all(place.low <= place.accuracy + 1e-9 and place.accuracy <= place.high + 1e-9 for place in shown)
    draw = draw_speed(found)
    assert render(draw, LIGHT, "png")[0].startswith(b"\x89PNG")
    assert render(draw, LIGHT, "svg") == render(draw, LIGHT, "svg")
    assert render(draw, DARK, "svg") != render(draw, LIGHT, "svg")


def test_mistakes() -> None:
    ids, golds = texts()
    with pytest.raises(SoftpruneError, match="12 texts and 11 classes"):
        bench(model_of(None), {}, ids, golds[1:], SMALL)
    with pytest.raises(SoftpruneError, match=r"half on cpu in torch\.bfloat16"):
        bench(model_of(None), {"half": model_of(1.0, torch.bfloat16)}, ids, golds, SMALL)
