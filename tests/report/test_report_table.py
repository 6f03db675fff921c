from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from softprune.report import comparison_table, formatting
from softprune.report.run_reader import read_run
from softprune.report.table import columns, comparison_rows

Edit = Callable[..., None]


def as_text(folder: Path, width: int = 200) -> str:
    console = Console(width=width, no_color=True, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(comparison_table(folder))
    return captured.get()


def test_rows_are_in_order_with_percents(xprompt_run: Path) -> None:
    rows = comparison_rows(read_run(xprompt_run))
    assert [(row.name, row.cells["value"]) for row in rows] == [
        ("constant", "52.7"),
        ("zero_shot", "53.1"),
        ("tuned", "71.1"),
        ("control", "71.5"),
        ("random", "56.3"),
        ("winner", "73.3"),
    ]


def test_a_row_holds_everything(xprompt_run: Path) -> None:
    cells = comparison_rows(read_run(xprompt_run))[-1].cells
    assert cells["interval"] == "67.9 to 78.3"
    assert cells["fresh"] == "72.8 ± 0.6 (3)"
    assert (cells["tokens"], cells["pieces"], cells["parameters"]) == ("14", "112", "448")
    assert cells["seconds"] == "64.8"
    assert cells["predicted"] == "yes 203, no 74"


def test_what_does_not_apply_differs_from_what_was_not_measured(xprompt_run: Path, edit: Edit) -> None:
    edit(xprompt_run, lambda info: info["results"].update(random=None))
    rows = {row.name: row for row in comparison_rows(read_run(xprompt_run))}
    assert rows["zero_shot"].cells["tokens"] == rows["tuned"].cells["fresh"] == formatting.NOT_APPLICABLE
    assert {rows["random"].cells[name] for name in ("value", "tokens", "fresh")} == {formatting.NOT_MEASURED}
    assert not rows["random"].measured


def test_rows_that_reach_down_to_the_constant_answer_are_marked(xprompt_run: Path) -> None:
    rows = comparison_rows(read_run(xprompt_run))
    assert {row.name for row in rows if row.at_chance} == {"zero_shot", "random"}
    assert "53.1 ‡" in as_text(xprompt_run)


def test_eighty_columns_hold_everything(xprompt_run: Path, edit: Edit) -> None:
    counts = {"abbreviation": 5, "entity": 34, "description": 17}
    edit(xprompt_run, lambda info: [info["results"][name].update(predicted=counts) for name in info["results"]])
    edit(xprompt_run, lambda info: info["results"]["constant"].update(answer="description"))
    shown = as_text(xprompt_run, width=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert "winning ticket: abbreviation 5, entity 34, description 17" in shown
    for word in ("accuracy", "(description)", "retrained", "78.3", "1,280", "64.8"):
        assert word in shown


def test_a_run_that_only_tunes_has_three_rows(tune_run: Path) -> None:
    run = read_run(tune_run)
    assert [row.name for row in comparison_rows(run)] == ["constant", "zero_shot", "tuned"]
    assert "fresh" not in dict(columns(run))


def test_answers_are_neither_markup_nor_commands_in_a_terminal(xprompt_run: Path, edit: Edit) -> None:
    edit(xprompt_run, lambda info: info["results"]["winner"].update(predicted={"[red]no[/red]\x1b[2J": 7}))
    shown = as_text(xprompt_run)
    assert "[red]no[/red]\\x1b[2J 7" in shown
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formatting.percent(0.7329), "73.3"),
        (formatting.percent(None), "not measured"),
        (formatting.percent(float("nan")), "not measured"),
        (formatting.points(0.0157), "+1.6"),
        (formatting.points(-0.0001), "0.0"),
        (formatting.interval(None), "not measured"),
        (formatting.spread([0.5]), "50.0 (1)"),
        (formatting.spread([0.5, 0.6]), "55.0 ± 7.1 (2)"),
        (formatting.spread([]), "not measured"),
        (formatting.number(7680), "7,680"),
        (formatting.number(0.016687), "0.01669"),
        (formatting.seconds(5417.3), "5,417"),
        (formatting.p_value(0.0), "< 0.001"),
        (formatting.storage(1_610_612_736), "1.5 GiB"),
        (formatting.counts({}), "not measured"),
    ],
)
def test_numbers_in_words(written: str, expected: str) -> None:
    assert written == expected
