"""A study's page, tables and figures: ours beside the source's, text as text, what isn't known not invented."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from rich.console import Console
from small_studies import ATTACK, made_up

from softprune.config import Published
from softprune.studies.findings import Cell, Figure, Findings, Table, format_entry, has_stars, load_findings
from softprune.studies.page import html, make_plot
from softprune.studies.tables import csv_text, markdown, published_tables, rich_table, study_markdown


@pytest.fixture(scope="module")
def page() -> str:
    return html(*made_up())


def without_scripts(page: str) -> str:
    return re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)


def test_text_shows_as_text(page: str) -> None:
    assert "<img" not in without_scripts(page)
    assert "document.title=" not in "".join(re.findall(r"<script>(.*?)</script>", page, re.DOTALL))
    assert without_scripts(page).count("&lt;script&gt;document.title=&#39;taken&#39;") > 12
    assert "http-equiv" in page
    assert ATTACK in "".join(json.dumps(cell) for cell in made_up()[1].findings["tables"])


def test_ours_stand_beside_what_was_published(page: str) -> None:
    text = without_scripts(page)
    assert (
        text.index("Measured here")
        < text.index("76.2 (72.0 to 80.4)")
        < text.index("As published")
        < text.index("76.0")
    )
    assert "50.0*" in text
    assert "not interpretable" in text
    assert "not measured (no mask)" in text
    assert "../runs/demo-tiny-tune-0-0123456789" in text
    assert "href" not in text


def test_what_is_not_said_leaves_no_stub() -> None:
    study, record = made_up()
    silent = study.model_copy(update={"source": "", "question": ""})
    assert "softprune study ·" in html(study, record)
    assert 'kicker">softprune study</p>' in html(silent, record)
    assert "From: " in study_markdown(study, "", (), ())
    assert "From" not in study_markdown(silent, "", (), ())


def test_what_is_not_there_leaves_no_heading() -> None:
    study, record = made_up()
    plain = record.model_copy(update={"findings": Findings(()).document(), "work": {}})
    text = html(study.model_copy(update={"published": (), "source": "", "question": ""}), plain)
    for heading in (
        "As published",
        "Measured here",
        "More that was",
        "Figures",
        "What it shows",
        "not interpretable",
        "of its own",
    ):
        assert heading not in text.replace("the study's own work", "")
    assert len(text) < 200_000 < len(html(study, record))  # plotly stays out


def test_the_time_of_a_run_that_was_not_measured_is_not_invented(page: str) -> None:
    assert (
        "runs not measured, the study&#39;s own work 1.3" in page
        or "runs not measured, the study's own work 1.3" in page
    )


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(0.762, 0.72, 0.804), "76.2 (72.0 to 80.4)"),
        (Cell(0.762, 0.72), "76.2"),
        (Cell(0.0123, -0.01, 0.03, unit="points", chance=True), "+1.2 (-1.0 to +3.0)*"),
        (Cell(12345, unit="count"), "12,345"),
        (Cell(0.00012345, unit="number"), "0.000123"),
        (Cell(None), "not measured"),
        (Cell(None, note="one class"), "not measured (one class)"),
        (Cell(0.5, note="of 3"), "50.0 of 3"),
        ("text", "text"),
    ],
)
def test_cells_as_text(cell: Cell | str, text: str) -> None:
    assert format_entry(cell) == text


def test_only_ours_are_starred() -> None:
    assert has_stars([Table("a", "", ("x",), ((Cell(1.0, chance=True),),))])
    assert not has_stars([Table("a", "", ("x",), ((Cell(1.0), "1*"),)[:0])])


def test_tables_as_markdown_csv_and_on_a_terminal() -> None:
    table, _ = load_findings(made_up()[1].findings).tables
    text = markdown(table)
    assert "\\<script>" in text
    assert "](" not in text.replace("\\[x\\](", "")
    assert all(line.replace("\\|", "").count("|") == 6 for line in text.splitlines() if line.startswith("|"))
    rows = list(csv.reader(io.StringIO(csv_text(table))))
    assert rows[0][:4] == ["%", "trec", "trec low", "trec high"]
    assert rows[1][:4] == [ATTACK, "0.762", "0.72", "0.804"]
    assert rows[1][-3:] == ["-0.02", "", ""]
    console = Console(file=(out := io.StringIO()), width=400)
    console.print(rich_table(Table("a", "[bold]\x1b[31m", ("[red]x",), (("\x07[/]",),), "")))
    assert all(part in out.getvalue() for part in ("[bold]", "[red]x", "[/]"))
    assert not {"\x1b", "\x07"} & set(out.getvalue())


def test_a_table_that_does_not_fit_together_is_no_table() -> None:
    with pytest.raises(ValueError, match="rows of 2 cells"):
        Table("a", "", ("x", "y"), (("1",),))
    one = Table("a", "", ("x",), ())
    with pytest.raises(ValueError, match="different names"):
        Findings((one, one))


def test_published_tables_keep_their_digits() -> None:
    (table,) = published_tables([Published(title="T", columns=("a", "b"), rows=[["x", "76.0"]])])  # type: ignore[arg-type]
    assert (table.rows, table.published) == ((("x", "76.0"),), True)


def test_figures_get_colours_and_their_numbers() -> None:
    bars, heat, points, many = (make_plot(figure) for figure in load_findings(made_up()[1].findings).figures)
    assert bars.table.headings == ("", "x", "y", "low", "high")
    assert bars.table.rows == (
        (ATTACK, "a", 0.1, pytest.approx(0.09), pytest.approx(0.11)),
        (ATTACK, ATTACK, None, None, None),
    )
    assert heat.table.rows == (("0", 0.1, -0.2), ("1", None, 1.0))
    assert heat.traces[0]["colorscale"] == "theme:signed_scale"
    assert points.table.headings == ("x", "y")
    assert many.table.rows == ()
    assert bars.layout["colorway"][0] == "theme:c0"


def test_lying_bars_have_their_intervals_along_x() -> None:
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": ["a"],
        "x": [1.0],
        "error_x": {"array": [0.5], "arrayminus": [0.25]},
    }
    layout = {"xaxis": {"title": {"text": "score"}}, "yaxis": {"title": "what"}}
    found = make_plot(Figure("f", "F", "", (trace,), layout)).table
    assert (found.headings, found.rows) == (("score", "what", "low", "high"), ((1.0, "a", 0.75, 1.5),))
