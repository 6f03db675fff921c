"""A chart is drawn twice from the same numbers: as a picture, and as the interactive figure in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softprune.report.figures import plan_figures
from softprune.report.interactive import Plot
from softprune.report.mpl_style import LIGHT
from softprune.report.plotting import draw_chart, plot_chart
from softprune.report.run_reader import Run, read_run


def plots_of(run: Run) -> dict[str, Plot]:
    return {plan.name: plot_chart(plan, plan.chart) for plan in plan_figures(run) if plan.chart is not None}


@pytest.mark.parametrize("name", ["frontier", "training"])
def test_both_drawings_have_the_same_points_and_legend(xprompt_run: Path, name: str) -> None:
    run = read_run(xprompt_run)
    chart = next(plan.chart for plan in plan_figures(run) if plan.name == name)
    assert chart is not None
    figure, plot = draw_chart(chart, LIGHT), plots_of(run)[name]
    lines = [line for axes in figure.axes for line in axes.lines]
    assert len(lines) == len(plot.traces)
    for line, trace in zip(lines, plot.traces, strict=True):
        assert list(line.get_xdata()) == list(trace["x"])
        measured = [None if np.isnan(y) else y for y in np.asarray(line.get_ydata(), float)]
        assert measured == list(trace["y"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [t["name"] for t in plot.traces if t["showlegend"]]
    ranges = []
    for key, axis in plot.layout.items():
        if key.startswith("xaxis"):
            ranges.append([10**end if axis.get("type") == "log" else end for end in axis["range"]])
    assert [list(axes.get_xlim()) for axes in figure.axes] == [pytest.approx(each) for each in ranges]
    assert {axes.get_xscale() == "log" for axes in figure.axes} == ({True, False} if name == "frontier" else {False})


def test_both_drawings_have_the_same_intervals_and_names(xprompt_run: Path) -> None:
    run = read_run(xprompt_run)
    chart = next(plan.chart for plan in plan_figures(run) if plan.name == "frontier")
    assert chart is not None
    figure, plot = draw_chart(chart, LIGHT), plots_of(run)["frontier"]
    whiskers, names = [], []
    for axes in figure.axes:
        for collection in axes.collections:
            whiskers += [sorted(segment[:, 1]) for segment in collection.get_segments()]  # type: ignore[attr-defined]
        names += [text.get_text() for text in axes.texts]
    drawn, written = [], []
    for trace in plot.traces:
        errors = trace.get("error_y", {"arrayminus": [], "array": []})
        for y, down, up in zip(trace["y"], errors["arrayminus"], errors["array"], strict=False):
            drawn.append([y - down, y + up])
        written += [text for text in trace.get("text", []) if text]
    assert len(drawn) > 10
    assert whiskers == [pytest.approx(ends) for ends in drawn]
    assert "winner" in names
    assert names == written


def test_every_trained_candidate_is_a_point_with_its_numbers(xprompt_run: Path) -> None:
    """On select; whatever is scored on report is on axes of its own."""
    run = read_run(xprompt_run)
    plot = plots_of(run)["frontier"]
    points = {}
    for trace in plot.traces:
        if trace["yaxis"] == "y" and trace["name"] not in ("tuned prompt", "control, unpruned, retrained"):
            for x, y, text in zip(trace["x"], trace["y"], trace["hovertext"], strict=True):
                points[text.partition("<br>")[0].removesuffix(" (winner)")] = (x, y, text)
    trained = [c for c in run.candidates if c.select is not None]
    assert set(points) == {c.id for c in trained}
    for c in trained:
        x, y, text = points[c.id]
        assert (x, y) == (c.parameters, pytest.approx(100 * (c.select or 0)))
        assert f"{c.parameters:,} parameters, {100 * (1 - c.parameters / 1280):.1f}% pruned" in text
    assert [plot.layout[f"yaxis{at}"]["title"]["text"] for at in ("", 2, 3, 4)] == [
        "accuracy on select (%)",
        *["accuracy on report (%)"] * 3,
    ]
    # Rows of the table: constant answer, zero-shot, tuned, control, random mask, and every trained candidate.
    assert len(plot.table.rows) == 5 + len(trained)


def test_curves_leave_gaps_where_nothing_was_measured(xprompt_run: Path) -> None:
    run = read_run(xprompt_run)
    plot = plots_of(run)["training"]
    (losses,) = [t for t in plot.traces if t["name"] == "tuning" and "loss on train" in str(t["hovertext"][0])]
    assert losses["y"][1] is None
    assert None not in losses["y"][2:]
    assert "not measured" in str(losses["hovertext"][1])
    assert sum(row[2] is None for row in plot.table.rows) == 1
    assert {row[0] for row in plot.table.rows} == {"tuning", "control", "winner"}


def test_a_figure_without_numbers_is_not_drawn(xprompt_run: Path) -> None:
    (xprompt_run / "metrics.jsonl").unlink()
    assert set(plots_of(read_run(xprompt_run))) == {"frontier"}
