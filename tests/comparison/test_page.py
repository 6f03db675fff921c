"""The figures and the page of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparisons import NOTHING, floor, found, row

from softprune.report.mpl_style import DARK, LIGHT, Theme, render
from softprune.studies.comparison.page import LOOKS, MARKERS, Place, looks, places, plans, short, write_page

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "resolved.yaml").write_text("kind: compare\n")
    return tmp_path


def test_points_are_percent_and_what_costs_nothing_has_none() -> None:
    lora, prompt = places(found(), "trainable")
    assert (lora.name, lora.x, lora.y) == ("lora", 294_912.0, 90.0)
    assert (lora.low, lora.high) == pytest.approx((88.0, 93.0))
    assert prompt.look != lora.look
    unmeasured = found(rows=[row("lora", 0.9, trainable=None, interval=None), floor("constant", 0.2)])
    assert places(unmeasured, "trainable") == []
    assert places(unmeasured, "seconds") == [Place("lora", lora.look, 123.4, 90.0, 90.0, 90.0)]


def test_a_loss_is_drawn_as_it_is() -> None:
    (place,) = places(found(metric="loss", rows=[row("prompt", -2.5, interval=[-2.6, -2.4])]), "seconds")
    assert (place.low, place.y, place.high) == (-2.6, -2.5, -2.4)


def test_figures_are_drawn_in_both_themes_with_the_same_bytes_each_time() -> None:
    for plan in plans(found()):
        assert plan.draw is not None
        light = render(plan.draw, LIGHT, "png")
        assert light[0].startswith(b"\x89PNG")
        assert light == render(plan.draw, LIGHT, "png") != render(plan.draw, DARK, "png")
        assert render(plan.draw, LIGHT, "svg") == render(plan.draw, LIGHT, "svg")


def test_lines_stand_where_the_floors_are() -> None:
    made = found(rows=[row("prompt", 0.8), floor("zero_shot", 0.5), floor("constant", 0.25)])
    plan = plans(made)[0]
    assert plan.draw is not None
    (axes,) = plan.draw(LIGHT).axes
    levels = {line.get_label(): line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1}
    assert levels["zero-shot, nothing trained"] == 50.0
    assert levels["best constant answer"] == 25.0
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trainable parameters", "accuracy (%)")


def test_captions_name_the_floors_that_are_drawn() -> None:
    copied = floor("constant", 0.2) | {"answer": "first 3 sentences", "others": NOTHING | {"rougeL": 0.2}}
    for plan in plans(found(rows=[row("prompt", 0.8), floor("zero_shot", 0.5), copied])):
        assert "Horizontal lines: zero-shot, nothing trained; the text's own first 3 sentences." in plan.caption
        assert "constant" not in plan.caption
        assert "means over seeds" in plan.caption
    alone = plans(found(rows=[row("prompt", 0.8)], seeds=[0]))[0].caption
    assert "Horizontal" not in alone
    assert "Points are of 1 seed, " in alone


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_no_two_methods_look_alike_nor_like_a_floor(theme: Theme) -> None:
    found_looks = looks(theme)
    assert len(set(found_looks)) == len(LOOKS) == len(set(MARKERS[: len(LOOKS)])) == 11
    assert theme.other not in {colour for colour, _ in found_looks}
    control, random, xprompt = (found_looks[LOOKS.index(f"xprompt{name}")] for name in ("-control", "-random", ""))
    assert (control, random, xprompt) == ((theme.kept, False), (theme.tuned, False), (theme.kept, True))


def test_methods_of_one_cost_stand_side_by_side_and_in_the_figure() -> None:
    names = {"prompt": 0.8, "xprompt": 0.8, "xprompt-control": 0.8, "lora": 0.9}
    rows = [row(name, mean, trainable=2048 if "prompt" in name else 10**6) for name, mean in names.items()]
    plan = plans(found(rows=[*rows, floor("constant", 0.3)]))[0]
    assert plan.draw is not None
    figure = plan.draw(LIGHT)
    (axes,) = figure.axes
    figure.canvas.draw()
    lines = [container.lines[0] for container in axes.containers]
    assert [line.get_xdata()[0] for line in lines] == [2048, 2048, 2048, 10**6]
    shown = [line.get_transform().transform((line.get_xdata()[0], line.get_ydata()[0])) for line in lines]
    exact = axes.transData.transform((2048, 80))
    assert [round((x - exact[0]) / figure.dpi * 72) for x, _ in shown[:3]] == [-8, 0, 8]
    box = axes.get_window_extent()
    assert all(box.contains(x, y) for x, y in shown)
    assert axes.get_ylim()[0] < 30 < 93 < axes.get_ylim()[1]  # whiskers and floors too


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (20, "20"), (5000, "5,000"), (2e4, "20k"), (3e6, "3M"), (1e10, "10B")],
)
def test_ticks_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_the_page_holds_everything_and_runs_no_text(folder: Path) -> None:
    made = found(task=HOSTILE, backbone=HOSTILE, command=HOSTILE, not_defined={"ia3": HOSTILE})
    text = write_page(made, folder).read_text()
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;") >= 5
    assert text.count('<img src="data:image/png;base64,') == 2
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "<td>88.0 to 93.0</td>" in text
    assert "median time to answer 8 at once" in text
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {f"quality_{cost}.{form}" for cost in ("parameters", "time") for form in ("png", "svg")}


def test_a_figure_without_numbers_says_so_and_leaves_no_file(folder: Path) -> None:
    write_page(found(), folder)
    text = write_page(found(rows=[row("prompt", 0.8, seconds=None)]), folder).read_text()
    assert "Not measured: training times." in text
    assert not (folder / "figures" / "quality_time.png").exists()
    assert (folder / "figures" / "quality_parameters.png").exists()
