from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.prompts.prompt_io import load_vectors
from softprune.studies.experiments import start_from_transfer as experiment
from softprune.studies.experiments.start_from_transfer import (
    CONTROL,
    KEPT,
    ORDINARY,
    TASK,
    TUNED,
    WHOLE,
    ZEROED,
    conduct,
    lifted,
    transfer_pairs,
)
from softprune.studies.findings import Cell, Findings, Table
from softprune.studies.study_context import StudyContext
from softprune.types import Mask, PromptState
from studies import small_bench

pytestmark = pytest.mark.slow


def test_a_lifted_mask_keeps_zero_pieces_and_fills_pruned_tokens() -> None:
    piece_PS = torch.tensor([[True, False], [False, False], [True, True]])
    vectors_PH = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0] * 4, [3.0, 4.0, 5.0, 6.0]])
    made = lifted(PromptState(vectors_PH, Mask(piece_PS.any(1), piece_PS)), torch.full((3, 4), 9.0))
    assert made.tolist() == [[1.0, 2.0, 0.0, 0.0], [9.0] * 4, [3.0, 4.0, 5.0, 6.0]]


def test_prompts_of_other_shapes_are_told() -> None:
    state = PromptState(torch.ones(2, 4), Mask(torch.ones(2) > 0, torch.ones(2, 2) > 0))
    with pytest.raises(SoftpruneError, match=r"\[2, 4\] and \[3, 4\]"):
        lifted(state, torch.ones(3, 4))


@pytest.fixture(scope="module")
def study(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    folder = tmp_path_factory.mktemp("transfer")
    options = {"pairs": [["demo", str(folder / "mood.yaml")]]}
    return small_bench(
        folder, tiny_models("sentence"), "start_from_transfer", {"kind": "xprompt"}, options=options, seeds=1
    )


@pytest.fixture(scope="module")
def found(study: StudyContext) -> Findings:
    return conduct(study)


def test_pairs_are_all_ordered_ones_unless_named(tmp_path: Path) -> None:
    plain = small_bench(tmp_path, tmp_path, "start_from_transfer", {})
    mood = str(tmp_path / "mood.yaml")
    assert transfer_pairs(plain) == [("demo", mood), (mood, "demo")]
    strange = small_bench(tmp_path, tmp_path, "start_from_transfer", {}, options={"pairs": [["demo", "trec"]]})
    alone = small_bench(tmp_path, tmp_path, "start_from_transfer", {}, tasks=["demo"])
    for each in (strange, alone):
        with pytest.raises(SoftpruneError, match="pairs"):
            transfer_pairs(each)


def test_every_way_starts_where_it_says(study: StudyContext, found: Findings) -> None:
    files = {path.name.partition("-")[0]: path for path in (study.root / "files").iterdir()}
    assert set(files) == {"lifted", "ticket"}
    runs = [path for path in (study.root / "runs").iterdir() if (path / "COMPLETE").exists()]
    assert len(runs) == 7  # two of their own, five that start from demo's
    kinds = sorted(path.name.split("-")[2] for path in runs)
    assert kinds == ["tune"] * 4 + ["xprompt"] * 3, kinds
    assert len(found.tables[0].rows) == 10


def test_table_has_the_runs_own_numbers(study: StudyContext, found: Findings) -> None:
    rows = {str(row[0]): row[1] for row in found.tables[0].rows}
    cells = {name: cell for name, cell in rows.items() if isinstance(cell, Cell)}
    (own,) = study.make({"own": study.spec(study.tasks[1], 0)}).values()
    assert cells[TUNED].value == own.value("tuned")
    assert cells[CONTROL].value == own.value("control")
    assert set(cells) >= {TASK, ORDINARY, WHOLE, ZEROED, KEPT}
    assert all(cell.low is not None and cell.low <= (cell.value or 0) for cell in cells.values())
    differences = {str(row[0]): row[1] for row in found.tables[1].rows}
    less = differences[f"{TASK} less {TUNED}"]
    assert isinstance(less, Cell)
    assert less.value == pytest.approx((cells[TASK].value or 0) - (cells[TUNED].value or 0))
    assert len(found.sentences) == 9


def test_a_kept_mask_stays(study: StudyContext, found: Findings) -> None:
    (source,) = study.make({"source": study.spec("demo", 0)}).values()
    masked = source.mask.elements_PH(32)
    tunes = (study.root / "runs").glob("*-tune-*")
    kept = next(path for path in tunes if str(source.mask_file) in (path / "resolved.yaml").read_text())
    tuned = load_vectors(kept / "prompts" / "tuned.safetensors")
    assert bool((tuned[~masked] == 0).all())
    assert bool((tuned[masked] != 0).any())
    assert not bool(masked.all())


def test_nothing_is_claimed_on_examples_that_chose() -> None:
    rows = [(f"{ours} less {theirs}", Cell(0.03, 0.01, 0.05, "points")) for ours, theirs in experiment.CLAIMS]
    table = Table("differences", "", ("points", "b from a"), rows)
    free, chosen = (experiment._sentences(table, here) for here in (False, True))
    assert all("1 above" in line and ", above" in line for line in free)
    assert all("above" not in line and "no significance claimed" in line for line in chosen)
