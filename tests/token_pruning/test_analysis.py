from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeReader, by_chance, made_texts, make_trace, prefers

from softprune.errors import SoftpruneError
from softprune.report.mpl_style import LIGHT, Plan, render
from softprune.token_pruning.analysis.measure import measure
from softprune.token_pruning.analysis.page import analyse, plans
from softprune.token_pruning.analysis.words import Tagger

pytestmark = pytest.mark.slow

FEW = 400
TWO = ("retention_by_place", "state_map")
FIGURES = {"tokens_by_layer", "retention_by_pos", "retention_by_place", "state_map"}


@pytest.fixture(scope="module")
def written(make_tagger: Callable[..., Tagger], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An analysis of texts in which nouns are preferred, with everything that one can have."""
    folder = tmp_path_factory.mktemp("analysis")
    reader: Any = FakeReader(prefers("cat", "sea", "tree", "film"))
    texts = [*made_texts(40), "<script>alert('x')</script> sea & cat"]
    traces = reader.trace(texts, [i % 2 for i in range(41)], states=True)
    tagger = make_tagger(entities=("locomotive",), performance={"pos_acc": 0.9475, "test_file": "made.conllu"})
    told = analyse(
        traces,
        tagger,
        folder / "out",
        keywords=["sea", "runs", "zebra"],
        model=reader,
        resamples=FEW,
        title="<b>Made</b>",
    )
    assert json.loads((folder / "out" / "analysis.json").read_text()) == json.loads(json.dumps(told))
    return folder / "out"


def test_every_file_is_there(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {"analysis.json", "analysis.html", "kept.csv", "figures"}
    assert {path.stem for path in (written / "figures").iterdir()} == FIGURES
    assert len(list((written / "figures").iterdir())) == 2 * len(FIGURES)
    with (written / "kept.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 42


def test_numbers(written: Path) -> None:
    told = json.loads((written / "analysis.json").read_text())
    assert (told["texts"], told["layers"], told["labels"], told["schema"]) == (41, 3, ["bad", "good"], 1)
    assert set(told["retention"]) == {"pos", "stop", "entity", "place", "frequency", "class"}
    assert told["tagger"] == {"name": "en_by_rule", "accuracy": 0.9475, "measured_on": "made.conllu", "entities": True}
    nouns = next(row for row in told["retention"]["pos"] if row["name"] == "NOUN")
    assert nouns["clear"]
    assert nouns["kept"]["low"] < nouns["kept"]["value"] < nouns["kept"]["high"]
    assert told["tokens"]["alive"][0]["value"] == 1.0
    assert told["keywords"]["accuracy"]["effect"] is not None
    assert told["clusters"]["classes_are"] == "gold"
    assert told["accuracy"]["texts"] == 41


def test_the_page_is_whole_and_safe(written: Path) -> None:
    page = (written / "analysis.html").read_text()
    assert not re.search(r"https?://|<link|@import|url\(|<script|<b>", page)
    assert "Tagger en_by_rule: 94.8% of tags right on made.conllu" in page
    assert "&lt;b&gt;Made&lt;/b&gt;" in page
    for title in ("By part of speech", "Stop words", "Named entities", "Keywords", "By class", "Do the states cluster"):
        assert title in page
    assert page.count('class="finding"') >= 8
    assert "not measured" not in page
    assert page.count("data:image/png;base64,") == 2 * len(FIGURES)


def test_random_dropping_is_told_to_show_nothing(make_tagger: Callable[..., Tagger], tmp_path: Path) -> None:
    reader = FakeReader(by_chance)
    traces = reader.trace(made_texts(150), [i % 2 for i in range(150)])
    analyse(traces, make_tagger(), tmp_path, labels=reader.labels, resamples=1000)
    page = (tmp_path / "analysis.html").read_text()
    assert page.count("This table shows no preference") == 5
    assert "Kept more often" not in page
    assert "accuracy unknown" in page


def test_without_a_tagger_gold_or_states_the_page_says_what_is_missing(tmp_path: Path) -> None:
    traces = [make_trace("a b", [("a", 3), ("b", 1)])] * 3
    told = analyse(traces, None, tmp_path, resamples=FEW)
    page = (tmp_path / "analysis.html").read_text()
    assert told["tagger"] is None
    assert told["accuracy"]["value"] is None
    assert told["labels"] == ["0", "1"]
    assert "for no tagger was given" in page
    assert "no true classes" in page
    assert "too narrow" in page
    assert not (tmp_path / "figures" / "state_map.png").exists()


def test_the_same_seed_gives_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_two(found: Any) -> list[Plan]:
        return [plan if plan.name in TWO else replace(plan, draw=None) for plan in plans(found)]

    monkeypatch.setattr("softprune.token_pruning.analysis.page.plans", only_two)
    traces = FakeReader(by_chance).trace(made_texts(20), [i % 2 for i in range(20)], states=True)
    for name in ("a", "b"):
        analyse(traces, None, tmp_path / name, resamples=FEW)
    for file in ("analysis.json", "analysis.html", "kept.csv", *(f"figures/{name}.svg" for name in TWO)):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_figures_have_their_numbers(make_tagger: Callable[..., Tagger]) -> None:
    traces = FakeReader(by_chance).trace(made_texts(20), [i % 2 for i in range(20)])
    found = measure(traces, make_tagger(), resamples=FEW)
    drawn = {plan.name: plan.draw for plan in plans(found)}
    assert drawn["state_map"] is None
    bars = drawn["retention_by_pos"]
    assert bars is not None
    widths = [bar.get_width() for bar in bars(LIGHT).axes[0].patches]
    kept = [100 * (row.kept.value or 0) for row in found.tables["pos"]]
    assert sorted(widths) == pytest.approx(sorted(kept))
    assert render(bars, LIGHT, "svg") == render(bars, LIGHT, "svg")


def test_wrong_keywords_are_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match="keyword"):
        analyse([make_trace("a", [("a", 3)])], None, tmp_path / "out", keywords=[])
    assert not (tmp_path / "out").exists()


def test_no_texts(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match="at least one text"):
        analyse([], None, tmp_path)
