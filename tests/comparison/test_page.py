"""The figures and the page of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparisons import NOTHING, floor, found, row

from softprune.report.frontier import Contender
from softprune.report.mpl_style import DARK, LIGHT, render
from softprune.report.plotting import Chart, Series
from softprune.runs.comparison_record import ComparisonRecord
from softprune.studies.comparison.page import LOOKS, build_frontier, find_look, plan_frontier, write_page

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "resolved.yaml").write_text("kind: compare\n")
    return tmp_path


def contenders(record: ComparisonRecord) -> dict[str, Contender]:
    return {each.label: each for each in build_frontier(record).contenders}


def chart_of(record: ComparisonRecord) -> Chart:
    chart = plan_frontier(record).chart
    assert chart is not None
    return chart


def series_of(record: ComparisonRecord) -> dict[str, dict[str, Series]]:
    """By what a panel's axis counts, its series by name."""
    return {panel.x_label: {each.name: each for each in panel.series} for panel in chart_of(record).panels}


def test_points_are_percent_with_their_costs() -> None:
    made = contenders(found())
    lora, prompt = made["lora"], made["prompt"]
    assert lora.costs == {"stored": 147_456, "tokens": 20, "seconds": 123.4}
    assert lora.score == 90.0
    assert lora.interval == pytest.approx((88.0, 93.0))
    assert (prompt.colour, prompt.marker) != (lora.colour, lora.marker)
    assert made["zero_shot"].costs == {"stored": 0, "tokens": 0, "seconds": 0}
    unmeasured = found(rows=[row("lora", 0.9, stored=None, tokens=None, interval=None), floor("constant", 0.2)])
    assert set(series_of(unmeasured)) == {"training seconds"}
    (point,) = (each for each in series_of(unmeasured)["training seconds"].values() if each.marker == "triangle-up")
    assert (point.x, point.y, point.intervals) == (pytest.approx((123.4,)), (90.0,), (None,))
    assert "Not measured: stored numbers, prompt tokens read." in plan_frontier(unmeasured).caption


def test_a_loss_is_drawn_as_it_is() -> None:
    made = found(metric="loss", rows=[row("prompt", -2.5, interval=[-2.6, -2.4])])
    assert (contenders(made)["prompt"].score, contenders(made)["prompt"].interval) == (-2.5, (-2.6, -2.4))
    assert chart_of(made).table.rows[0][:3] == ("prompt", "-2.500", "-2.600 to -2.400")
    assert chart_of(made).panels[0].y_label == "loss"


def test_texts_are_scored_by_their_metric() -> None:
    made = found(metric="rougeL", rows=[row("prompt", 0.25, others=NOTHING | {"rougeL": 0.25})])
    assert {panel.y_label for panel in chart_of(made).panels} == {"ROUGE-L (%)"}


def test_the_frontier_by_hand() -> None:
    """By numbers and seconds the cheap prompt stays beside the better lora; by tokens lora reads none, and is best."""
    rows = [
        row("prompt", 0.8, stored=1000, tokens=20, seconds=50),
        row("lora", 0.83, stored=9000, tokens=0, seconds=90),
        row("xprompt", 0.79, stored=400, tokens=8, seconds=95),
        row("xprompt-control", 0.8, kind="control", stored=1000, tokens=20, seconds=70),
        floor("zero_shot", 0.5),
    ]
    made = found(rows=rows)
    ringed = {cost: [text for text, _ in panel["non-dominated"].labels] for cost, panel in series_of(made).items()}
    assert ringed == {
        "stored numbers": ["xprompt", "prompt", "xprompt-control", "lora"],  # twins don't dominate each other
        "prompt tokens read": ["lora"],
        "training seconds": ["prompt", "lora"],
    }
    # Each reaches from 2 points below to 3 above its mean, and zero-shot has no interval here.
    caption = plan_frontier(made).caption
    assert "here by stored numbers for prompt, xprompt-control, lora; by training seconds for lora." in caption
    by_name = {line[0]: line[-2:] for line in chart_of(made).table.rows}
    assert by_name["xprompt"] == ("stored numbers", "–")
    assert by_name["lora"][1] == "xprompt, prompt, xprompt-control"


def test_one_method_alone_is_no_winner() -> None:
    made = found(rows=[row("prompt", 0.8)], seeds=[0])
    panels = series_of(made)
    assert all([*panel] == ["prompt", "non-dominated"] for panel in panels.values())
    caption = plan_frontier(made).caption
    assert "Points are of 1 seed, " in caption
    assert ": here" not in caption


def test_figures_are_drawn_in_both_themes_with_the_same_bytes_each_time() -> None:
    plan = plan_frontier(found())
    assert plan.draw is not None
    light = render(plan.draw, LIGHT, "png")
    assert light[0].startswith(b"\x89PNG")
    assert light == render(plan.draw, LIGHT, "png") != render(plan.draw, DARK, "png")
    assert render(plan.draw, LIGHT, "svg") == render(plan.draw, LIGHT, "svg")


def test_lines_stand_where_the_floors_are() -> None:
    copied = floor("constant", 0.2) | {"answer": "first 3 sentences", "others": NOTHING | {"rougeL": 0.2}}
    rows = [row("prompt", 0.8), row("lora", 0.6), floor("zero_shot", 0.5), copied]
    plan = plan_frontier(found(rows=rows))
    assert plan.draw is not None
    for axes in plan.draw(LIGHT).axes:
        assert {50.0, 20.0} <= {line.get_ydata()[0] for line in axes.lines}
        assert axes.get_ylim()[0] < 50 < 83 < axes.get_ylim()[1]  # whiskers too
    names = [series.name for series in chart_of(found(rows=rows)).panels[0].series]
    assert names[:2] == ["zero-shot, nothing trained (50.0)", "the text's own first 3 sentences (20.0, off the axis)"]


def test_no_two_methods_look_alike_nor_like_a_floor() -> None:
    rows = [row(name, 0.5, kind="control" if name in LOOKS[-2:] else "method") for name in LOOKS]
    looks = [find_look(each) for each in found(rows=rows).rows]
    assert len(set(looks)) == len(LOOKS)
    assert len({marker.removesuffix("-open") for _, marker in looks}) == min(len(LOOKS), 12)
    assert "other" not in {colour for colour, _ in looks}
    assert [find_look(each) for each in found(rows=[floor("constant", 0.2)]).rows] == [("other", "")]
    assert all(hasattr(LIGHT, colour) for colour, _ in looks)


def test_methods_of_one_cost_stand_side_by_side_and_in_the_figure() -> None:
    names = {"prompt": 0.8, "xprompt": 0.8, "xprompt-control": 0.8, "lora": 0.9}
    rows = [row(name, mean, stored=2048 if "prompt" in name else 10**6) for name, mean in names.items()]
    panel = series_of(found(rows=rows))["stored numbers"]
    labels = ("prompt", "xprompt", "xprompt, unpruned control", "lora")
    places = [panel[name].x[0] for name in labels]
    assert places == sorted(places)
    assert places[1] == pytest.approx(2048)
    assert len(set(places)) == 4
    assert "stored numbers: 2,048" in panel["prompt"].hover[0]  # the number itself, not its place


def test_the_page_holds_everything_and_runs_no_text(folder: Path) -> None:
    made = found(task=HOSTILE, backbone=HOSTILE, command=HOSTILE, not_defined={"ia3": HOSTILE})
    text = write_page(made, folder).read_text()
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;") >= 5
    assert text.count('<img src="data:image/png;base64,') == 1
    assert "<td>88.0 to 93.0</td>" in text
    assert "median time to answer 8 at once" in text
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"frontier.png", "frontier.svg"}
    for part in ("95% intervals over other examples", '<th scope="col">non-dominated by</th>', "theme:tuned"):
        assert part in text


def test_a_figure_without_numbers_says_so_and_leaves_no_file(folder: Path) -> None:
    write_page(found(), folder)
    costs = dict.fromkeys(("stored", "tokens", "seconds"))
    text = write_page(found(rows=[row("prompt", 0.8, **costs)]), folder).read_text()
    assert "Not measured: stored numbers, prompt tokens read, training seconds." in text
    assert not list((folder / "figures").iterdir())
    assert len(text) < 100_000  # plotly stays out
