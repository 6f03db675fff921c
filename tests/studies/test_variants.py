"""Settings side by side: numbers held to what is computed by hand, and small runs of every sort."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from softprune.config import Study, Variant
from softprune.errors import SoftpruneError
from softprune.statistics.methods_over_seeds import Outcome, Scored
from softprune.studies.experiments import statistics, variants
from softprune.studies.experiments.variants import (
    NOT_DEFINED,
    Claim,
    Setting,
    claim_sentences,
    claim_table,
    entry_verdict,
    size_table,
    study_claims,
    study_models,
    study_variants,
    variant_scores,
)
from softprune.studies.findings import Cell, Table, bars
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Row, mean_cell
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import ABOVE, AT_CHANCE, BELOW, CHOSEN_HERE, NEITHER

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "backbone": {"dtype": "float32", "device": "cpu", "threads": 1},
    "task": {"shots": 24, "limit_report": 12},
    "prompt": {"tokens": 4, "pieces": 4},
    "tuning": {"epochs": 1},
    "search": {"strategy": "grid", "token_ratios": [0.5], "piece_ratios": [0.5], "group": 2},
    "selection": {"seeds": 0, "resamples": 200},
}
ADAPT: dict[str, Any] = {"kind": "adapt", "tuning": {"optimiser": "adamw", "lr": 5e-5, "patience": None}}
NAMES = ("tuned", "control", "pruned")


def bench_of(folder: Path, model: str = "tiny", *, seeds: int = 3, **changes: Any) -> StudyContext:
    """A study of three variants on one task; no run is made."""
    named = [{"name": name, "label": name.upper(), "row": "winner" if name == "pruned" else name} for name in NAMES]
    values: dict[str, Any] = {
        "title": "Small",
        "keys": {"kind": "xprompt"},
        "variants": named,
        "scales": {"smoke": {"backbone": model, "tasks": ["demo"], "seeds": seeds, "keys": SMALL}},
    }
    return StudyContext(Study.model_validate(values | changes), folder, folder / "studies")


def setting(name: str, right: int, *, chance: bool = False, examples: int = 40, seeds: int = 3) -> Setting:
    """One that answers the first `right` of some examples right, on demo, with every seed."""
    counts = np.array([[float(place < right), 1.0] for place in range(examples)])
    scored = Scored(counts, tuple(map(str, range(examples))), (None,) * examples)
    row = {"demo": Outcome((right / examples,) * seeds, (scored,) * seeds)}
    return Setting(Variant(name=name, label=name.upper()), Row(row, {"demo": chance}), {})


def refused(name: str) -> Setting:
    return Setting(Variant(name=name, label=name.upper()), Row({}, {}, NOT_DEFINED), {}, "no place for it")


def compare(study: StudyContext, settings: dict[str, Setting], claims: list[Claim]) -> tuple[Table, list[str]]:
    """The differences that the claims are about, and their sentences."""
    table = claim_table(study, settings, claims, "differences", "Differences")
    return table, claim_sentences(study, claims, table)


def test_a_difference_is_paired_and_its_sentence_tells_what_it_shows(tmp_path: Path) -> None:
    study = bench_of(tmp_path)
    settings = {"tuned": setting("tuned", 20), "pruned": setting("pruned", 30), "same": setting("same", 21)}
    claims = [
        Claim("pruned", "tuned", "pruning helps"),
        Claim("tuned", "pruned", "tuning helps"),
        Claim("same", "tuned"),
    ]
    table, told = compare(study, settings, claims)
    cell = table.rows[0][1]
    assert isinstance(cell, Cell)
    assert cell.value == pytest.approx(10 / 40)
    assert cell.low is not None
    assert cell.low > 0  # ten examples of forty, and none the other way
    assert told[0].startswith("The source: pruning helps. Here: found. PRUNED less TUNED: demo +25.0 (")
    assert told[0].endswith(f"points, {ABOVE}.")
    assert "Here: the opposite is found." in told[1]
    assert told[1].endswith(f"points, {BELOW}.")
    assert told[2].startswith("SAME less TUNED: demo +2.5 (")
    assert told[2].endswith(f"points, {NEITHER}.")
    assert [row[0] for row in table.rows] == ["PRUNED less TUNED", "TUNED less PRUNED", "SAME less TUNED"]
    assert "cover other runs (seeds) and other examples" in table.note
    assert "corrected for all differences of the table (Holm)" in table.note


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_allow_no_verdict(tmp_path: Path, seeds: int) -> None:
    claim = Claim("pruned", "tuned", "pruning helps")
    settings = {name: setting(name, right, seeds=seeds) for name, right in (("tuned", 20), ("pruned", 30))}
    study = bench_of(tmp_path, seeds=seeds)
    table, (told,) = compare(study, settings, [claim])
    none = f"no verdict ({seeds} seed{'s' * (seeds > 1)})"
    assert told.startswith(f"The source: pruning helps. Here: {none}. PRUNED less TUNED: demo +25.0 (")
    assert told.endswith(f"points, {none}.")
    assert ABOVE not in told
    assert "for these very prompts; fewer than 3 seeds allow no verdict" in table.note
    assert "Holm" not in table.note


def test_holm_counts_all_differences_of_the_table(tmp_path: Path) -> None:
    """Six examples of forty: p = 0.01 alone, which thirty looks don't allow to be called a difference."""
    study = bench_of(tmp_path)
    settings = {"tuned": setting("tuned", 20), "pruned": setting("pruned", 26), "same": setting("same", 21)}
    claim = Claim("pruned", "tuned")
    alone = compare(study, settings, [claim])[0].rows[0][1]
    assert isinstance(alone, Cell)
    assert entry_verdict(alone, here=False) == ABOVE
    settings |= {f"same-{number}": setting(f"same-{number}", 21) for number in range(29)}
    others = [Claim(f"same-{number}", "tuned") for number in range(29)]
    one = compare(study, settings, [claim, *others])[0].rows[0][1]
    assert isinstance(one, Cell)
    assert one.p == pytest.approx(alone.p)
    assert one.p_holm == pytest.approx(30 * (one.p or 0))
    assert entry_verdict(one, here=False) == NEITHER


def test_nothing_is_concluded_at_chance_or_where_choices_were_made_on_the_examples(tmp_path: Path) -> None:
    claim = Claim("pruned", "tuned", "pruning helps")
    settings = {"tuned": setting("tuned", 20, chance=True), "pruned": setting("pruned", 30)}
    study = bench_of(tmp_path)
    table, (told,) = compare(study, settings, [claim])
    assert entry_verdict(table.rows[0][1], here=False) == AT_CHANCE
    assert "Here: no conclusion possible." in told
    sure = {"tuned": setting("tuned", 20), "pruned": setting("pruned", 30)}
    paper = bench_of(tmp_path, keys={"kind": "xprompt", "selection.protocol": "paper"})
    _, (told,) = compare(paper, sure, [claim])
    assert CHOSEN_HERE in told
    assert "found" not in told
    assert ABOVE not in told
    assert CHOSEN_HERE.capitalize() in variant_scores(paper, sure, "scores", "Scores").note
    assert CHOSEN_HERE not in compare(study, sure, [claim])[1][0]


def test_what_is_not_defined_stays_in_its_table(tmp_path: Path) -> None:
    study = bench_of(tmp_path)
    settings = {"tuned": setting("tuned", 20), "deep": refused("deep")}
    table = variant_scores(study, settings, "scores", "Scores")
    assert list(table.rows[1]) == ["DEEP", NOT_DEFINED]
    assert "DEEP: not defined, no place for it." in table.note
    claim = Claim("deep", "tuned", "depth helps")
    differences, (told,) = compare(study, settings, [claim])
    assert differences.rows[0][1] == NOT_DEFINED
    assert "no conclusion possible" in told
    assert mean_cell(settings["deep"].row) == NOT_DEFINED
    assert mean_cell(settings["tuned"].row) == Cell(0.5)
    figure = bars(table, "scores", "Scores", ["demo"])
    assert [trace["name"] for trace in figure.traces] == ["TUNED"]
    assert "Without a bar where the table has no number: DEEP." in figure.caption


def test_bars_have_the_tables_intervals() -> None:
    rows = (("a", Cell(0.5, 0.4, 0.7), Cell(0.25)), ("b", Cell(None), Cell(0.1, 0.05, 0.2, chance=True)))
    figure = bars(Table("t", "T", ("%", "x", "y"), rows), "f", "F", ["x", "y"])
    first, second = figure.traces
    assert first["x"] == ["x", "y"]
    assert first["y"] == [50.0, 25.0]
    assert first["error_y"]["array"] == [pytest.approx(20.0), None]  # no interval, not one of no width
    assert first["error_y"]["arrayminus"] == [pytest.approx(10.0), None]
    assert (second["x"], second["text"]) == (["y"], ["*"])
    assert second["error_y"]["array"] == pytest.approx([10.0])
    assert second["error_y"]["arrayminus"] == pytest.approx([5.0])


def made(tokens: int, pieces: int, parameters: int) -> FinishedRun:
    run = FinishedRun(Path("nowhere"), "demo", 0)
    info = SimpleNamespace(tokens=tokens, pieces=pieces, parameters=parameters, prompt_tokens=20, hidden=64)
    run.__dict__["ticket"] = SimpleNamespace(info=info)  # as if it were read already
    return run


def test_what_survived_is_a_share_of_all_numbers(tmp_path: Path) -> None:
    runs = {("demo", 0): made(10, 80, 320), ("demo", 1): made(5, 40, 160)}
    pruned = Setting(Variant(name="pruned", label="PRUNED", row="winner"), Row({}, {}), runs)
    settings = {"tuned": setting("tuned", 20), "pruned": pruned}
    table = size_table(bench_of(tmp_path, seeds=2), settings)
    assert table is not None
    ((label, cell),) = table.rows
    assert label == "PRUNED"
    assert isinstance(cell, Cell)
    assert cell.value == pytest.approx((320 + 160) / 2 / (20 * 64))
    assert cell.note == "(tokens 10, 5; pieces 80, 40)"
    assert made(10, 80, 320).share_kept == pytest.approx(0.25)
    assert size_table(bench_of(tmp_path, seeds=2), {"tuned": setting("tuned", 20)}) is None


def test_claims_default_to_the_first_and_variants_have_names(tmp_path: Path) -> None:
    assert study_claims(bench_of(tmp_path)) == [Claim("control", "tuned"), Claim("pruned", "tuned")]
    named = bench_of(tmp_path, options={"claims": [["pruned", "control", "it helps"]]})
    assert study_claims(named) == [Claim("pruned", "control", "it helps")]
    for wrong in ([["pruned"]], [["pruned", "nobody"]], ["pruned"], [7]):
        with pytest.raises(SoftpruneError, match="claims"):
            study_claims(bench_of(tmp_path, options={"claims": wrong}))
    for names in ([], [{"name": "a", "label": "a"}, {"name": "a", "label": "b"}]):
        with pytest.raises(SoftpruneError, match="variants"):
            study_variants(bench_of(tmp_path, variants=names))


def test_models_have_names_of_their_own(tmp_path: Path) -> None:
    both = bench_of(tmp_path, options={"backbones": ["tiny", "some/tiny-causal"]})
    assert study_models(both) == {"tiny": "tiny", "tiny-causal": "some/tiny-causal"}
    assert study_models(bench_of(tmp_path, backbone="gpt2", options={"backbones": ["tiny"]})) == {"gpt2": "gpt2"}
    for wrong in ([], ["a/tiny", "b/tiny"]):
        with pytest.raises(SoftpruneError, match="models"):
            study_models(bench_of(tmp_path, options={"backbones": wrong}))


def test_methods_prompts_and_what_a_model_has_no_place_for(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    """DistilBERT's attention takes no prefix; all else is run."""
    more = [
        {"name": "full", "label": "FULL", "row": "adapted", "keys": ADAPT | {"adapter.method": "full"}},
        {"name": "deep", "label": "DEEP", "row": "adapted", "keys": ADAPT | {"adapter.method": "p-tuning-v2"}},
    ]
    model = str(tiny_models("distilbert"))
    own = bench_of(tmp_path, model).config.model_dump()["variants"]
    options = {"claims": [["pruned", "control", "it helps"]]}
    study = bench_of(tmp_path, model, seeds=1, variants=[*own, *more], options=options)
    found = variants.conduct(study)
    scores, compared, survived = found.tables
    cells = {str(row[0]): row[1] for row in scores.rows}
    assert list(cells) == ["TUNED", "CONTROL", "PRUNED", "FULL", "DEEP"]
    assert cells["DEEP"] == NOT_DEFINED
    assert {run.record.kind for run in study.used.values()} == {"xprompt", "adapt"}
    assert len(study.used) == 2
    for run in study.used.values():
        rows = {"FULL": "adapted"} if run.record.kind == "adapt" else {"TUNED": "tuned", "PRUNED": "winner"}
        for label, row in rows.items():
            cell = cells[label]
            assert isinstance(cell, Cell)
            assert cell.value == pytest.approx(run.value(row))
    assert survived.rows[0][0] == "PRUNED"
    assert compared.rows[0][0] == "PRUNED less CONTROL"
    assert len(found.sentences) == 1

    by_model = variants.conduct_models(
        bench_of(
            tmp_path, model, seeds=1, variants=own, options={"backbones": [model], "claims": [["pruned", "control"]]}
        )
    )
    assert by_model.tables[0].columns == ("%", "distilbert")
    assert list(by_model.tables[0].rows) == [[label, cells[label]] for label in ("TUNED", "CONTROL", "PRUNED")]

    kept = variants.conduct_sizes(bench_of(tmp_path, model, seeds=1))
    record = next(run.record for run in study.used.values() if run.record.kind == "xprompt")
    hidden, size = record.backbone.hidden or 0, record.ticket.parameters or 0
    numbers = {str(row[0]): row[1] for row in kept.tables[0].rows}
    assert numbers["fine-tuning: all weights"] == Cell(record.backbone.parameters, unit="count")
    assert numbers["prompt tuning"] == Cell(4 * hidden, unit="count")
    assert numbers["XPrompt"] == Cell(size, unit="count")
    share = size / (4 * hidden)
    assert numbers[variants.KEPT] == Cell(share, unit="percent")
    assert list(kept.sentences) == [f"Winners keep {100 * share:.1f}% of the prompt's numbers here (1 run)."]


def test_statistics_are_those_of_the_data(tmp_path: Path) -> None:
    printed = {"title": "T", "columns": ["dataset", "Train", "Dev"], "rows": [["Demo", "7", "24"]]}
    study = bench_of(tmp_path, published=[printed], options={"sets": {"Train": "train", "Dev": "validation"}})
    found = statistics.conduct(study)
    from softprune.data import load_task

    splits = load_task("demo").load()
    heads = dict(zip(found.tables[0].columns, found.tables[0].rows[0], strict=True))
    assert heads["train"] == Cell(len(splits.train or ()), unit="count")
    gold = [example.gold for example in splits.report or ()]
    assert heads[statistics.CONSTANT] == Cell(max(map(gold.count, set(gold))) / len(gold))
    assert not study.used
    assert f"{len(splits.train or ()):,} train here, the source has 7 (Train)" in found.sentences[0]
    assert "the same" not in found.sentences[0].partition(";")[0]


def test_the_same_size_is_called_the_same(tmp_path: Path) -> None:
    def told(train: str, dev: str, test: str) -> str:
        printed = {"title": "T", "columns": ["dataset", "Train", "Dev", "Test"], "rows": [["demo", train, dev, test]]}
        options = {"sets": {"Train": "train", "Dev": "validation", "Test": "dev"}}
        study = bench_of(tmp_path, published=[printed], options=options)
        return statistics.conduct(study).sentences[0]

    sizes = told("1", "1", "9").split("; ")
    dev = sizes[1].partition(" ")[0].replace(",", "")
    assert "the same" not in sizes[1]
    again = told("1", dev, "9").split("; ")
    assert again[1].endswith(f"the source has {int(dev):,} (Dev), the same")
    assert "the same" not in again[0]
    assert sizes[2] == "no dev set here, the source has 9 (Test)."
