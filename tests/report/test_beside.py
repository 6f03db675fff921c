"""Runs beside each other: differences where both answered the same question, and why there are none elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

from softprune.data.metrics import METRICS, Metric, answer_arrays, with_ones
from softprune.report import explain_comparisons
from softprune.report.page import html
from softprune.report.run_comparison import SEED, compare_runs, why_not
from softprune.report.run_reader import read_run
from softprune.statistics.bootstrap import Floats, paired_bootstrap
from softprune.statistics.seeds import compare_rows
from softprune.types import Scores

Edit = Callable[..., None]
MakeRun = Callable[..., Path]


def answers(
    folder: Path, name: str, predicted: list[int], gold: list[int], edit: Edit, metric: str, value: float
) -> None:
    """Predictions of one prompt, and the score that is recorded of them."""
    lines = [
        {"id": f"x{i}", "index": i, "text": "t", "answers": ["yes", "no"], "gold": g, "predicted": p}
        for i, (p, g) in enumerate(zip(predicted, gold, strict=True))
    ]
    path = folder / "predictions" / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    edit(folder, lambda info: info["results"].update({name: {"metric": metric, "value": value, "n": len(lines)}}))


@pytest.fixture
def pair(tmp_path: Path, build: MakeRun) -> tuple[Path, Path]:
    return build(tmp_path / "one", 20, 3), build(tmp_path / "other", 24, 3)


def of(pair: tuple[Path, Path]) -> dict[str, Any]:
    return compare_runs(*map(read_run, pair))


def line(found: dict[str, Any], label: str) -> Any:
    return next(line for line in found["rows"] if line["label"].startswith(label))


GOLD = [0, 1] * 20
ONE = [0] * 40
OTHER = [g if i % 8 else 1 - g for i, g in enumerate(GOLD)]


def test_the_difference_is_paired_by_example(pair: tuple[Path, Path], edit: Edit) -> None:
    right = [float(np.mean([p == g for p, g in zip(given, GOLD, strict=True)])) for given in (ONE, OTHER)]
    for folder, given, value in zip(pair, (ONE, OTHER), right, strict=True):
        answers(folder, "winner", given, GOLD, edit, "accuracy", value)
    found = line(of(pair), "winning ticket")
    assert found["difference"] == f"{100 * (right[1] - right[0]):+.1f}"
    counts = [np.array([[p == g, 1] for p, g in zip(given, GOLD, strict=True)], float) for given in (ONE, OTHER)]
    wanted = paired_bootstrap(counts[1], counts[0], lambda c: c[..., 0] / c[..., 1], seed=SEED)
    assert found["interval"] == f"{100 * wanted.low:+.1f} to {100 * wanted.high:+.1f}"
    turned = line(of((pair[1], pair[0])), "winning ticket")
    assert turned["difference"] == f"{100 * (right[0] - right[1]):+.1f}"
    assert turned["interval"] != found["interval"]
    assert line(of(pair), "control")["interval"] == "not measured"


def test_retrainings_are_compared_over_seeds(pair: tuple[Path, Path], edit: Edit) -> None:
    """Three fresh seeds a side; an example more is wrong on each seed than on the one before."""
    counts: list[list[Any]] = []
    for folder, first in zip(pair, (ONE, OTHER), strict=True):
        value = float(np.mean([p == g for p, g in zip(first, GOLD, strict=True)]))
        answers(folder, "winner", first, GOLD, edit, "accuracy", value)
        counts.append([])
        (folder / "predictions" / "fresh").mkdir()
        for seed in range(3):
            given = [1 - p if i < seed else p for i, p in enumerate(first)]
            pairs = enumerate(zip(given, GOLD, strict=True))
            lines = [{"id": str(i), "index": i, "gold": g, "predicted": p} for i, (p, g) in pairs]
            path = folder / "predictions" / "fresh" / f"winner-{seed}.jsonl"
            path.write_text("".join(json.dumps(each) + "\n" for each in lines))
            counts[-1].append(np.array([[p == g, 1] for p, g in zip(given, GOLD, strict=True)], float))
    wanted = compare_rows(counts[1], counts[0], lambda c: c[..., 0] / c[..., 1], seed=SEED, paired=False)
    found = line(of(pair), "winning ticket")
    assert found["retrained"] == f"{100 * wanted.value:+.1f} ({100 * wanted.low:+.1f} to {100 * wanted.high:+.1f})"
    paired = compare_rows(counts[1], counts[0], lambda c: c[..., 0] / c[..., 1], seed=SEED)
    assert f"{100 * paired.low:+.1f}" not in found["retrained"], "seeds of two runs don't belong together"
    (pair[0] / "predictions" / "fresh" / "winner-2.jsonl").unlink()
    assert line(of(pair), "winning ticket")["retrained"] == "not measured"


def test_groups_are_resampled_whole(pair: tuple[Path, Path], edit: Edit) -> None:
    for folder, given, value in zip(pair, (ONE, OTHER), (0.5, 0.875), strict=True):
        answers(folder, "winner", given, GOLD, edit, "accuracy", value)
    alone = line(of(pair), "winning ticket")["interval"]
    for folder in pair:
        path = folder / "predictions" / "winner.jsonl"
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(each | {"group": f"g{each['index'] // 10}"}) + "\n" for each in lines))
    assert line(of(pair), "winning ticket")["interval"] != alone


def test_f1_counts_the_answer_that_gives_what_was_reported(pair: tuple[Path, Path], edit: Edit) -> None:
    def f1(given: list[int], positive: int) -> float:
        hits = sum(p == g == positive for p, g in zip(given, GOLD, strict=True))
        return 2 * hits / (given.count(positive) + GOLD.count(positive))

    for folder, given in zip(pair, (ONE, OTHER), strict=True):
        answers(folder, "winner", given, GOLD, edit, "f1", f1(given, 0))
        edit(folder, lambda info: info["task"].update(metric="f1"))
    assert line(of(pair), "winning ticket")["interval"] != "not measured"
    edit(pair[0], lambda info: info["results"]["winner"].update(value=0.123))
    assert line(of(pair), "winning ticket")["interval"] == "not measured"


class WrongShare(Metric):
    """A metric of somebody's own, which no other code knows: minus the fraction of wrong answers."""

    name = "wrong_share"

    def counts(self, scores: Scores) -> Floats:
        predicted, gold = answer_arrays(scores)
        return -with_ones(predicted != gold) * [1, -1]


def test_a_metric_of_ones_own_has_an_interval_too(
    pair: tuple[Path, Path], edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, given in zip(pair, (ONE, OTHER), strict=True):
        wrong = float(np.mean([p != g for p, g in zip(given, GOLD, strict=True)]))
        answers(folder, "winner", given, GOLD, edit, "wrong_share", -wrong)
        edit(folder, lambda info: info["task"].update(metric="wrong_share"))
    assert line(of(pair), "winning ticket")["interval"] == "not measured", "nobody knows it yet"
    monkeypatch.setitem(METRICS, "wrong_share", WrongShare)
    known = line(of(pair), "winning ticket")["interval"]
    for folder, given in zip(pair, (ONE, OTHER), strict=True):
        right = float(np.mean([p == g for p, g in zip(given, GOLD, strict=True)]))
        answers(folder, "winner", given, GOLD, edit, "accuracy", right)
        edit(folder, lambda info: info["task"].update(metric="accuracy"))
    assert line(of(pair), "winning ticket")["interval"] == known, "accuracy less 1 differs as accuracy does"


def other_task(info: dict[str, Any]) -> None:
    info["task"].update(id="boolq")


def other_metric(info: dict[str, Any]) -> None:
    info["task"].update(metric="f1")


def other_version(info: dict[str, Any]) -> None:
    info["task"].update(version=2)


def other_examples(info: dict[str, Any]) -> None:
    info["task"]["indices"].update(report=[1])


def no_indices(info: dict[str, Any]) -> None:
    info["task"].update(indices=None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_task, "the tasks differ: rte and boolq"),
        (other_metric, "the metrics differ: accuracy and f1"),
        (other_version, "the versions of the task differ: 1 and 2"),
        (other_examples, "they were reported on different examples"),
        (no_indices, "which examples were reported on isn't known of both"),
    ],
)
def test_what_cannot_be_compared_says_why(pair: tuple[Path, Path], edit: Edit, change: Any, reason: str) -> None:
    assert of(pair)["reason"] is None
    edit(pair[1], change)
    found = of(pair)
    assert found["reason"] == reason
    assert {each["difference"] for each in found["rows"]} == {"not comparable"}
    text = html(read_run(pair[0]), [], [found])
    assert "<strong>Not comparable:</strong> " + str(escape(reason)) in text


def test_equal_indices_of_other_texts_are_other_examples(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "predictions" / "control.jsonl"
    path.write_text(path.read_text().replace("Passage 3.", "Passage three."))
    assert why_not(*map(read_run, pair)) == "they were reported on different examples"


def test_how_both_searched_is_told(pair: tuple[Path, Path], edit: Edit) -> None:
    for folder, strategy in zip(pair, ("sequential", "learned"), strict=True):
        edit(folder, lambda info, strategy=strategy: info.update(search={"strategy": strategy}))
        path = folder / "resolved.yaml"
        path.write_text("search:\n  token_ratios: [0.3, 0.6]\n  piece_ratios: [0.5]\n  prices: [0.1, 1.0]\n")
    facts = {heading: found for heading, *found in of(pair)["facts"]}
    assert facts["search strategy"] == ["sequential", "learned"]
    assert facts["token ratios"] == ["0.3, 0.6", "–"]
    assert facts["piece ratios"] == ["0.5", "–"]
    assert facts["prices of the gates"] == ["–", "0.1, 1.0"]
    (pair[0] / "resolved.yaml").write_text("search: [")
    assert {heading: found for heading, *found in of(pair)["facts"]}["token ratios"] == ["not measured", "–"]


def test_the_terminal_says_what_stands_beside(pair: tuple[Path, Path], edit: Edit) -> None:
    assert explain_comparisons(pair[0], pair[1:]) == [f"beside it: {pair[1]}"]
    edit(pair[1], other_task)
    assert explain_comparisons(pair[0], pair[1:]) == [
        f"beside it: {pair[1]} (not comparable: the tasks differ: rte and boolq)"
    ]


def test_hostile_names_are_text(tmp_path: Path, build: MakeRun, edit: Edit) -> None:
    one, other = build(tmp_path / "one", 20, 3), build(tmp_path / "<img src=x onerror=alert(1)>", 20, 3)
    edit(other, lambda info: info["backbone"].update(name="</script><script>alert(1)</script>"))
    text = html(read_run(one), [], [compare_runs(read_run(one), read_run(other))])
    assert "<img" not in text
    assert "<script>alert" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 4


def test_no_significance_is_claimed(pair: tuple[Path, Path]) -> None:
    alone, together = html(read_run(pair[0]), []), html(read_run(pair[0]), [], [of(pair)])
    assert "no significance is claimed" in together
    assert "Beside other runs" not in alone
    assert together.count(" p 0.") == alone.count(" p 0.")
