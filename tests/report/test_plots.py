"""Interactive figures show the numbers of the pictures in whose place they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprune.report.curves import frontier_of
from softprune.report.figures import figures_of
from softprune.report.plots import plots_of
from softprune.report.run_reader import read_run


def test_every_trained_candidate_is_a_point_with_its_numbers(xprompt_run: Path) -> None:
    run = read_run(xprompt_run)
    plot = plots_of(run, figures_of(run))["compression"]
    points = {
        text.partition("<br>")[0].removesuffix(" (winner)"): (x, y, text)
        for trace in plot.traces
        if "markers" in trace["mode"]
        for x, y, text in zip(trace["x"], trace["y"], trace["text"], strict=True)
    }
    trained = [c for c in run.candidates if c.select is not None]
    assert set(points) == {c.id for c in trained}
    for c in trained:
        x, y, text = points[c.id]
        assert (x, y) == (pytest.approx(100 * (1 - c.parameters / 1280)), pytest.approx(100 * (c.select or 0)))
        assert f"{c.parameters:,} parameters" in text
    assert len(plot.table.rows) == len(trained)
    frontier = frontier_of(run)
    assert frontier is not None
    (front,) = [trace for trace in plot.traces if trace["name"] == "Pareto front"]
    assert list(front["x"]) == [frontier.pruned[at] for at in frontier.front]


def test_curves_leave_gaps_where_nothing_was_measured(xprompt_run: Path) -> None:
    run = read_run(xprompt_run)
    plot = plots_of(run, figures_of(run))["training"]
    (losses,) = [t for t in plot.traces if t["name"] == "tuning" and "loss on train" in str(t["text"][0])]
    assert losses["y"][1] is None
    assert None not in losses["y"][2:]
    assert "not measured" in str(losses["text"][1])
    assert sum(row[2] is None for row in plot.table.rows) == 1
    assert {row[0] for row in plot.table.rows} == {"tuning", "control", "winner"}


def test_a_figure_without_numbers_is_not_drawn(xprompt_run: Path) -> None:
    (xprompt_run / "metrics.jsonl").unlink()
    run = read_run(xprompt_run)
    assert set(plots_of(run, figures_of(run))) == {"compression"}
