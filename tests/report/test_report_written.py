"""Runs whose texts were written, as their reports show them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softprune.report import formatting
from softprune.report.charts import frontier_chart, training_chart
from softprune.report.page import changed_answers, html, written_samples
from softprune.report.run_comparison import compare_runs
from softprune.report.run_reader import Prediction, read_run
from softprune.report.table import columns, comparison_rows, mark_meaning

Edit = Callable[..., None]


def as_texts(info: dict[str, Any]) -> None:
    """The run of answers, told as one of texts."""
    info["task"] |= {"targets": "text", "metric": "rougeL", "answers": None}
    for name, row in info["results"].items():
        row |= {"metric": "rougeL", "rouge1": 0.25, "rouge2": 0.125, "words": 12.5, "predicted": None}
        row["loss"] = None if name == "constant" else 2.5
    info["results"]["constant"]["answer"] = "first 3 sentences"
    info["results"]["winner"]["losses"] = {"train": 2.25, "select": 2.375, "report": 2.5}


@pytest.fixture
def written_run(xprompt_run: Path, edit: Edit) -> Path:
    edit(xprompt_run, as_texts)
    path = xprompt_run / "candidates.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["select"] is not None:
            line |= {"select": -1.5, "select_loss": 1.5}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return xprompt_run


def test_the_table_has_loss_and_rouge_instead_of_answers(written_run: Path) -> None:
    run = read_run(written_run)
    fields = dict(columns(run))
    assert fields["value"] == "ROUGE-L (%)"
    assert "predicted" not in fields
    rows = {row.name: row for row in comparison_rows(run)}
    winner = rows["winner"].cells
    assert [winner[name] for name in ("loss", "rouge1", "rouge2", "words")] == ["2.5", "25.0", "12.5", "12.5"]
    assert rows["constant"].cells["loss"] == formatting.NOT_APPLICABLE
    assert rows["constant"].label == "the text's own first 3 sentences"
    assert mark_meaning(run) == "‡ not shown to be above the text's own first sentences"


def test_figures_show_minus_the_loss_as_it_is(written_run: Path) -> None:
    run = read_run(written_run)
    frontier, training = frontier_chart(run), training_chart(run)
    assert frontier is not None
    assert training is not None
    select, *report = frontier.panels
    scores = {y for series in select.series if series.name != "tuned prompt" for y in series.y}
    assert scores - {y for series in select.series if series.name.startswith("control") for y in series.y} == {-1.5}
    assert select.y_label == training.panels[1].y_label == "minus loss on select"
    assert {panel.y_label for panel in report} == {"ROUGE-L on report (%)"}
    assert {p.select for p in run.points if p.candidate == "tuned"} == set(training.panels[1].series[-3].y)
    rows = {row[0]: row for row in frontier.table.rows}
    assert rows["winning ticket"][1:4] == ("1.5", "73.3", "67.9 to 78.3")  # the loss, then ROUGE-L
    assert "the text's own first sentences" in rows


def test_answers_are_still_percent(xprompt_run: Path) -> None:
    chart = frontier_chart(read_run(xprompt_run))
    assert chart is not None
    assert max(y for y in chart.panels[0].series[0].y if y is not None) > 1
    assert chart.panels[0].y_label == "accuracy on select (%)"


def test_the_page_tells_three_losses_and_no_answers(written_run: Path) -> None:
    page = html(read_run(written_run), [])
    for part in ("<td>2.25</td><td>2.375</td><td>2.5</td>", "loss on select", "<td>1.5</td>", "ROUGE-2 (%)"):
        assert part in page
    for part in ("McNemar", "answers given", "best constant answer", "select (%)"):
        assert part not in page


def test_some_texts_are_shown(written_run: Path, xprompt_run: Path) -> None:
    lines = [
        {
            "id": f"n{at}",
            "index": at,
            "text": "an <input>",
            "written": f"text {at}",
            "reference": "a box",
            "rougeL": 0.0,
        }
        for at in range(9)
    ]
    for name in ("zero_shot", "winner", "control"):
        path = written_run / "predictions" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = written_samples(read_run(written_run))
    assert [sample["id"] for sample in found] == ["n0", "n3", "n6"]
    assert found[1]["texts"] == [("zero_shot", "text 3"), ("winner", "text 3")]
    page = html(read_run(written_run), [])
    for part in ("What was written", "winning ticket: text 6", "an &lt;input&gt;", "Texts that changed"):
        assert part in page
    assert "score of an answer" not in page


def text(number: int, written: str, shares: float) -> Prediction:
    return Prediction(str(number), number, "an input", written=written, reference="a box", rougeL=shares)


def test_texts_that_share_more_are_better() -> None:
    control = [text(0, "a", 0.5), text(1, "b", 0.5), text(2, "c", 0.5), text(3, "same", 0.1)]
    winner = [text(0, "d", 0.75), text(1, "", 0.25), text(2, "e", 0.5), text(3, "same", 0.1)]
    found = changed_answers(control, winner)
    assert (found["compared"], found["gained"], found["lost"], found["neither"]) == (4, 1, 1, 1)
    gained = next(change for change in found["samples"] if change["direction"] == "gained")
    assert (gained["gold"], gained["control"], gained["winner"]) == ("a box", "a", "d")
    lost = next(change for change in found["samples"] if change["direction"] == "lost")
    assert lost["winner"] == "nothing"


# --- texts with an answer in them, right or wrong ---


def as_exact(info: dict[str, Any]) -> None:
    as_texts(info)
    info["task"] |= {"metric": "exact_match", "extract": r"#### <(\S+)>"}
    for row in info["results"].values():
        row |= {"metric": "exact_match", "extracted": 0.875, "rouge1": None, "rouge2": None}
    info["results"]["constant"]["answer"] = "42"


@pytest.fixture
def exact_run(xprompt_run: Path, edit: Edit) -> Path:
    edit(xprompt_run, as_exact)
    for name, found in {"control": ["1", None, "3", "4"], "winner": ["1", "2", None, "9"]}.items():
        lines = [
            {
                "id": f"n{at}",
                "index": at,
                "text": "a sum",
                "written": f"text {name} #### <{answer}>",
                "reference": f"so #### <{at + 1}>",
                "extracted": answer,
                "expected": str(at + 1),
                "right": answer == str(at + 1),
            }
            for at, answer in enumerate(found)
        ]
        path = xprompt_run / "predictions" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return xprompt_run


def test_the_table_says_how_often_an_answer_was_found(exact_run: Path) -> None:
    run = read_run(exact_run)
    fields = dict(columns(run))
    assert fields["value"] == "exact match (%)"
    assert fields["extracted"] == "with an answer (%)"
    assert {"rouge1", "rouge2", "predicted"}.isdisjoint(fields)
    rows = {row.name: row for row in comparison_rows(run)}
    assert rows["winner"].cells["extracted"] == "87.5"
    assert rows["constant"].label == "best constant answer (42)"
    assert mark_meaning(run) == "‡ not shown to be above the best constant answer"


def test_answers_in_texts_that_changed(exact_run: Path) -> None:
    run = read_run(exact_run)
    found = changed_answers(run.predictions["control"], run.predictions["winner"])
    counts = [found[name] for name in ("compared", "changed", "gained", "lost", "neither")]
    assert counts == [4, 4, 1, 2, 1]  # right both times, then only the winner, only the control twice
    gained = next(change for change in found["samples"] if change["direction"] == "gained")
    assert gained["id"] == "n1"
    assert (gained["control"][-11:], gained["winner"][-4:]) == ("→ no answer", " → 2")


def test_the_page_of_right_and_wrong_texts(exact_run: Path) -> None:
    page = html(read_run(exact_run), [])
    parts = ("#### &lt;(\\S+)&gt;", "1 right only with the winner, 2 right only with the control", "McNemar")
    for part in (*parts, "both are right, or both are wrong", "with an answer (%)"):
        assert part in page, part
    for part in ("ROUGE", "first sentences", "shares more"):
        assert part not in page, part


def test_runs_of_right_and_wrong_texts_beside_each_other(exact_run: Path, edit: Edit) -> None:
    def set_values(info: dict[str, Any]) -> None:
        for name in ("control", "winner"):
            info["results"][name]["value"] = {"control": 0.75, "winner": 0.5}[name]

    edit(exact_run, set_values)
    run = read_run(exact_run)
    rows = {row["label"]: row for row in compare_runs(run, run)["rows"]}
    assert rows["winning ticket"]["interval"] == "0.0 to 0.0"
    edit(exact_run, lambda info: info["results"]["winner"].update(value=0.25))  # not what the texts say
    other = read_run(exact_run)
    rows = {row["label"]: row for row in compare_runs(other, other)["rows"]}
    assert rows["winning ticket"]["interval"] == formatting.NOT_MEASURED
