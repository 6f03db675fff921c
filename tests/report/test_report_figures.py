from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from softprune.report.charts import frontier_chart, report_frontier, training_chart
from softprune.report.figures import histogram, importance_map, plan_figures
from softprune.report.mpl_style import DARK, LIGHT, render, sparse
from softprune.report.plotting import Chart, Series
from softprune.report.run_reader import TicketMask, read_run

pytestmark = pytest.mark.slow

NAMES = [
    "token_importance",
    "token_retention",
    "piece_importance",
    "piece_retention",
    "token_histogram",
    "piece_histogram",
    "frontier",
    "training",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_written_twice(written: Path, name: str) -> None:
    folder = written / "report" / "figures"
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert b"</svg>" in (folder / f"{name}.svg").read_bytes()
    assert (folder / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize("name", ["piece_retention", "frontier"])
def test_same_numbers_same_bytes(written: Path, name: str) -> None:
    plan = next(plan for plan in plan_figures(read_run(written)) if plan.name == name)
    svg = (written / "report" / "figures" / f"{name}.svg").read_bytes()
    assert render(plan.draw, LIGHT, "svg") == [svg]
    assert b"<dc:date>" not in svg


def test_a_users_matplotlibrc_changes_nothing(written: Path) -> None:
    plan = next(plan for plan in plan_figures(read_run(written)) if plan.name == "token_histogram")
    with mpl.rc_context({"axes.grid": True, "font.size": 30, "lines.linewidth": 9}):
        (drawn,) = render(plan.draw, LIGHT, "png")
        assert mpl.rcParams["font.size"] == 30
    assert drawn == (written / "report" / "figures" / "token_histogram.png").read_bytes()
    assert render(plan.draw, DARK, "png") != [drawn]


def test_pruned_cells_are_masked_and_survivors_keep_their_importance() -> None:
    piece_PS = np.array([[1.0, 4.0], [2.0, 8.0]])
    ticket = TicketMask(np.array([True, False]), np.array([[False, True], [False, False]]))
    figure = importance_map(np.array([3.0, 9.0]), piece_PS, ticket, LIGHT)
    tokens, pieces = (next(c for c in axes.collections if isinstance(c, QuadMesh)) for axes in figure.axes[:2])
    assert np.ma.getmaskarray(tokens.get_array()).ravel().tolist() == [False, True]
    assert np.ma.getmaskarray(pieces.get_array()).tolist() == [[True, False], [True, True]]
    assert pieces.get_array()[0, 1] == 1.0


def test_signed_importance_keeps_its_sign() -> None:
    scores = np.array([[-2.0, 1.0], [0.5, 0.0]])
    figure = importance_map(None, scores, None, LIGHT)
    (mesh,) = (c for c in figure.axes[0].collections if isinstance(c, QuadMesh))
    assert mesh.get_array().tolist() == [[-1.0, 0.5], [0.25, 0.0]]
    assert mesh.norm.vmin == -1
    bars = histogram(scores.ravel(), 5, "pieces", "kept", LIGHT).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 4


def test_histograms_count_shares_of_the_largest() -> None:
    figure = histogram(np.array([0.0, 1.0, 2.0, 9.0, 10.0]), 5, "tokens", "kept", LIGHT)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [2, 1, 0, 0, 2]


def panels_of(chart: Chart | None) -> list[dict[str, Series]]:
    """The series of each panel, by name."""
    assert chart is not None
    return [{series.name: series for series in panel.series} for panel in chart.panels]


FRONT, WINNER, CONTROL = "Pareto front on select", "winning ticket", "control, unpruned, retrained"


def test_all_trained_candidates_are_on_select(xprompt_run: Path) -> None:
    run = read_run(xprompt_run)
    trained = {(c.parameters, 100 * c.select): c for c in run.candidates if c.select is not None}
    series = panels_of(frontier_chart(run))[0]
    assert sum(c.select is not None for c in run.candidates) == 72
    front, others, winner = series[FRONT], series["other candidates"], series[WINNER]
    for each, is_on_front in ((front, True), (others, False)):
        shown = [trained[point] for point in zip(each.x, each.y, strict=True)]
        assert {c.pareto for c in shown} == {is_on_front}
    assert list(front.x) == sorted(front.x)
    assert trained[winner.x[0], winner.y[0]].status == "winner"
    assert len({*front.hover, *others.hover, *winner.hover}) == 72
    plan = next(plan for plan in plan_figures(run) if plan.name == "frontier")
    assert "9 of 81 candidates were not trained to the end: not measured" in plan.caption


def test_what_was_opened_is_on_report_with_its_costs(xprompt_run: Path) -> None:
    """By hand: sizes and scores of conftest's results; the ticket's seconds are those of the whole search."""
    run = read_run(xprompt_run)
    frontier = report_frontier(run)
    named = {each.label: each for each in frontier.contenders}
    opened = {c.id for c in run.candidates if c.report is not None and c.status != "winner"}
    assert set(named) - opened == {"constant", "zero_shot", "tuned", "control", "random", "winner"}
    assert opened < set(named)
    (winner,) = (c for c in run.candidates if c.status == "winner")
    assert named["control"].costs == {"stored": 1280, "tokens": 20, "seconds": 83.5}
    assert named["random"].costs == {"stored": winner.parameters, "tokens": winner.tokens_kept, "seconds": 63.0}
    assert named["winner"].costs == {"stored": winner.parameters, "tokens": winner.tokens_kept, "seconds": 41.25}
    assert (named["tuned"].score, named["tuned"].interval) == (71.12, pytest.approx((65.71, 76.53)))
    assert {named[name].costs["seconds"] for name in opened} == {None}
    assert named["zero_shot"].costs == {"stored": 0, "tokens": 0, "seconds": 0}
    _, stored, tokens, seconds = panels_of(frontier_chart(run))
    assert FRONT in stored.keys() & tokens.keys() - seconds.keys()
    assert stored["non-dominated"].y[-1] == seconds["non-dominated"].y[-1] == 73.29


def test_zeroed_tokens_are_read_all_the_same(xprompt_run: Path, edit: Callable[..., None]) -> None:
    edit(xprompt_run, lambda info: info.update(removal="zero"))
    costs = [each.costs["tokens"] for each in report_frontier(read_run(xprompt_run)).contenders]
    assert set(costs) == {0, 20}


def test_without_report_only_select_is_drawn(xprompt_run: Path, edit: Callable[..., None]) -> None:
    lines = [json.loads(line) for line in (xprompt_run / "candidates.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"report": None, "interval": None}
    (xprompt_run / "candidates.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    edit(xprompt_run, lambda info: info.update(results={}))
    run = read_run(xprompt_run)
    chart = frontier_chart(run)
    assert chart is not None
    assert [panel.y_label for panel in chart.panels] == ["accuracy on select (%)"]
    caption = next(plan.caption for plan in plan_figures(run) if plan.name == "frontier")
    assert "report" not in caption
    (xprompt_run / "candidates.jsonl").unlink()
    assert frontier_chart(read_run(xprompt_run)) is None


def levels(run: Path) -> list[tuple[str, float | None]]:
    series = panels_of(frontier_chart(read_run(run)))[0]
    return [(name, round(series[name].y[0] or 0, 4)) for name in ("tuned prompt", CONTROL) if name in series]


def test_levels_are_those_of_the_kept_checkpoints(xprompt_run: Path) -> None:
    point = {"phase": "tune", "candidate": "tuned", "epoch": 1, "train_loss": 1.0, "seconds": 1.0}
    measured = [{"step": 1, "select": 0.71, "select_loss": 0.9}, {"step": 2, "select": 0.64, "select_loss": 0.5}]
    lines = "".join(json.dumps(point | more) + "\n" for more in measured)
    (xprompt_run / "metrics.jsonl").write_text(lines)
    assert levels(xprompt_run) == [("tuned prompt", 71.0)]
    (xprompt_run / "resolved.yaml").write_text("tuning: {best_by: loss}\n")
    assert levels(xprompt_run) == [("tuned prompt", 64.0)]


def test_a_level_that_was_not_measured_is_left_out(xprompt_run: Path) -> None:
    assert [name for name, _ in levels(xprompt_run)] == ["tuned prompt", CONTROL]
    path = xprompt_run / "metrics.jsonl"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if '"control"' not in line))
    assert [name for name, _ in levels(xprompt_run)] == ["tuned prompt"]


def test_curves_leave_out_fresh_seeds_and_the_random_mask(xprompt_run: Path) -> None:
    chart = training_chart(read_run(xprompt_run))
    assert chart is not None
    losses, scores = ([series.name for series in panel.series] for panel in chart.panels)
    assert scores == ["other candidates"] * 71 + ["tuning", "control", "winner"]
    assert losses == ["tuning"] * 2 + ["control"] * 2 + ["winner"] * 2


def test_long_prompts_fit(build: Callable[..., Path], tmp_path: Path) -> None:
    run = read_run(build(tmp_path / "long", P=100, evaluations=1))
    for plan in plan_figures(run):
        if plan.name in ("token_importance", "piece_retention"):
            figure = plan.draw(LIGHT)
            assert max(len(axes.get_xticks()) for axes in figure.axes) <= 25
            assert figure.get_figheight() < 12


def test_ticks_get_sparse() -> None:
    assert sparse(20) == list(range(20))
    assert sparse(100) == list(range(0, 100, 5))
