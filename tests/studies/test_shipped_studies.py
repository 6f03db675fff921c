"""The studies that ship: their runs are valid recipes at both scales, and their printed tables are the sources'."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from softprune.config import list_shipped, load_study
from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.studies.experiments.variants import study_claims
from softprune.studies.runner import EXPERIMENTS
from softprune.studies.study_context import StudyContext

pytestmark = pytest.mark.slow

SCALES = ("smoke", "full")


@cache
def bench_of(name: str, scale: str = "smoke", *overrides: str) -> StudyContext:
    root = Path("/nowhere")
    return StudyContext(load_study(name, [f"scale={scale}", *overrides]), root, root / name)


@cache
def published(name: str) -> dict[str, dict[str, str]]:
    """The first printed table: by the row's name, then by the column's."""
    table = bench_of(name).config.published[0]
    return {row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", list_shipped("study"))
def test_runs_of_all_variants_are_valid_recipes(name: str, scale: str) -> None:
    study = bench_of(name, scale)
    assert study.tasks
    assert callable(EXPERIMENTS[study.config.experiment])
    assert study.config.size.hardware
    assert study.config.size.hours
    for task in study.tasks:
        load_task(task)
        for keys in [variant.keys for variant in study.config.variants] or [{}]:
            recipe = study.spec(task, study.config.seed, keys).recipe
            assert recipe.task.id == task
            if recipe.kind == "adapt":  # not the prompts' optimiser, which the scale names
                assert (recipe.tuning.optimiser, recipe.tuning.patience) == ("adamw", None)
                assert isinstance(recipe.tuning.lr, float)
    if study.config.experiment in ("variants", "models"):
        assert study_claims(study)


@pytest.mark.parametrize("name", list_shipped("study"))
def test_printed_tables_are_rectangular(name: str) -> None:
    tables = bench_of(name).config.published
    assert bool(tables) or name.partition("-")[0] not in ("table", "figure", "bart")
    for table in tables:
        assert table.rows
        assert table.title
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert len({row[0] for row in table.rows}) == len(table.rows)


def test_a_wrong_key_of_a_variant_is_told(tmp_path: Path) -> None:
    text = (Path(load_study.__code__.co_filename).parents[1] / "recipes/studies/table-6.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace("{prompt.init: labels}", "{prompt.inti: labels}"))
    with pytest.raises(SoftpruneError, match="inti"):
        load_study(tmp_path / "wrong.yaml")


def test_the_common_run_is_shared() -> None:
    """XPrompt on trec at the smoke scale is one run, whoever asks for it; other lengths are others."""
    asked = {
        (name, variant): {v.name: v.keys for v in bench_of(name).config.variants}[variant]
        for name, variant in (
            ("table-1", "xprompt"),
            ("table-4", "both"),
            ("table-5", "xprompt-20"),
            ("table-6", "vocabulary"),
            ("table-8", "tuned"),
            ("figure-1", "control"),
        )
    }
    folders = {bench_of(name).spec("trec", 0, keys).folder for (name, _), keys in asked.items()}
    assert folders == {bench_of("table-3").spec("trec", 0).folder}
    long = bench_of("table-5").spec("trec", 0, {"prompt.tokens": 100})
    assert long.folder not in folders
    few = bench_of("table-2").spec("trec", 0)
    assert few.folder not in folders
    assert few.recipe.task.shots == 32


@pytest.mark.parametrize(
    ("name", "row", "column", "printed"),
    [
        ("table-1", "T5-Large prefix tuning", "COPA", "-"),
        ("table-1", "T5-Large prompt tuning", "CB", "82.14"),
        ("table-1", "T5-XL XPrompt", "WiC", "76.95"),
        ("table-1", "T5-XXL P-tuning", "MultiRC", "87.56"),
        ("table-2", "GPT-3 2.7B", "Boolq", "70.30"),
        ("table-2", "XPrompt", "RTE", "67.87"),
        ("table-3", "XPrompt", "COPA", "15232"),
        ("table-3", "percentage", "Boolq", "71.25%"),
        ("table-4", "T5-Large XPrompt", "WSC", "70.39"),
        ("table-4", "T5-XL piece level", "RTE", "91.33"),
        ("table-5", "100 XPrompt", "WSC", "91.94"),
        ("table-5", "10 prompt tuning", "RTE", "88.44"),
        ("table-6", "XPrompt, random uniform", "WSC", "88.61"),
        ("table-8", "GLM-XXL 10B P-tuning", "CB", "98.20"),
        ("table-8", "T5-XXL 11B XPrompt", "Boolq", "90.87"),
        ("table-9", "CB", "Dev", "57"),
        ("table-9", "MultiRC", "Train", "5100"),
        ("bart", "WSC", "accuracy after pruning", "63.46%"),
        ("bart", "RTE", "accuracy before pruning", "48.01%"),
        ("bart", "COPA", "best ratios", "token 30%, piece 10%"),
        ("figure-1", "XPrompt", "T5-XL 3B", "89.32"),
    ],
)
def test_printed_numbers(name: str, row: str, column: str, printed: str) -> None:
    assert published(name)[row][column] == printed


def test_table_1_averages_follow_from_its_scores() -> None:
    """A slip of a digit in any score would show in its row's average; two of the source are a hundredth off."""
    for row, cells in published("table-1").items():
        scores = [float(text) for column, text in cells.items() if column != "Average" and text != "-"]
        assert sum(scores) / len(scores) == pytest.approx(float(cells["Average"]), abs=0.0151), row
        slipped = [scores[0] + 0.3, *scores[1:]]
        assert sum(slipped) / len(scores) != pytest.approx(float(cells["Average"]), abs=0.0151)


def test_tables_of_the_paper_agree_with_each_other() -> None:
    """Its tables print the same runs: T5-XL with 20 tokens."""
    main, lengths, levels = published("table-1"), published("table-5"), published("table-4")
    starts, others = published("table-6"), published("table-8")
    for task in ("WSC", "CB", "COPA", "RTE"):
        tuned, pruned = main["T5-XL prompt tuning"][task], main["T5-XL XPrompt"][task]
        assert lengths["20 prompt tuning"][task] == levels["T5-XL prompt tuning"][task] == tuned
        assert lengths["20 XPrompt"][task] == levels["T5-XL XPrompt"][task] == pruned
    for task in ("WSC", "COPA"):
        assert starts["XPrompt, sampled vocabulary"][task] == main["T5-XL XPrompt"][task]
    for task in ("CB", "RTE", "Boolq"):
        assert others["T5-XL 3B XPrompt"][task] == main["T5-XL XPrompt"][task]
        assert others["T5-XXL 11B XPrompt"][task] == main["T5-XXL XPrompt"][task]
    averages = published("figure-1")
    for column, model in {"T5-Large 770M": "T5-Large", "T5-XL 3B": "T5-XL", "T5-XXL 11B": "T5-XXL"}.items():
        for row in averages:
            assert averages[row][column] == main[f"{model} {row}"]["Average"]


def test_table_3_percentages_follow_from_its_counts() -> None:
    sizes = published("table-3")
    for task, count in sizes["XPrompt"].items():
        share = 100 * int(count) / int(sizes["prompt tuning"][task])
        assert share == pytest.approx(float(sizes["percentage"][task].rstrip("%")), abs=0.01), task
        assert int(count) % (2048 // 16) == 0  # whole pieces of T5-XL's 2048 dimensions


def test_the_bart_study_keeps_14_of_16_pieces() -> None:
    """61% and 79%: 14 or 18 tokens of 20, and within each 14 pieces of 16."""
    told = {row: int(cells["numbers retained"].strip("~%")) for row, cells in published("bart").items()}
    tokens = {row: 14 if "token 30%" in cells["best ratios"] else 18 for row, cells in published("bart").items()}
    assert {row: round(100 * count * 14 / 320) for row, count in tokens.items()} == told


def test_a_claim_must_be_of_variants() -> None:
    study = bench_of("table-6", "smoke", "options.claims=[[text, vocabulari]]")
    with pytest.raises(SoftpruneError, match="vocabulari"):
        study_claims(study)


def test_full_scales_have_the_papers_settings() -> None:
    for name in ("table-1", "table-2", "table-3", "table-4", "table-5", "table-6", "table-8"):
        recipe = bench_of(name, "full").spec("rte", 0).recipe
        assert (recipe.tuning.epochs, recipe.tuning.batch_size, recipe.tuning.lr) == (100, 16, 0.3), name
        assert (recipe.tuning.weight_decay, recipe.tuning.clip_scope) == (1e-5, "all"), name
        assert (recipe.prompt.tokens, recipe.prompt.pieces, recipe.prompt.init) == (20, 16, "vocabulary"), name
        assert (recipe.pruning.removal, recipe.pruning.importance) == ("zero", "paper"), name
        assert recipe.search.token_ratios == tuple(tenth / 10 for tenth in range(1, 10)), name
        assert (recipe.selection.protocol, recipe.selection.objective) == ("paper", "best"), name
    bart = {variant.name: variant.keys for variant in bench_of("bart").config.variants}["pruned"]
    recipe = bench_of("bart", "full").spec("rte", 0, bart).recipe
    assert (recipe.tuning.epochs, recipe.search.epochs, recipe.search.token_ratios) == (90, 10, (0.1, 0.3))
    assert (recipe.pruning.scope, recipe.pruning.importance, recipe.backbone.name) == (
        "per_token",
        "gradient",
        "facebook/bart-base",
    )
