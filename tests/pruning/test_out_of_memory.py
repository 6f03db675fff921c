"""A group that runs out of memory goes on in halves from where it was kept, and ends as smaller groups would have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys import distance
from whole_runs import CASES, Models, Run, Witness, execute_one

from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.pipelines.xprompt import execute
from softprune.training import jobs
from softprune.training.oom_splitting import parts_of, side_by_side
from softprune.types import Batch

pytestmark = pytest.mark.usefixtures("one_thread")

MOST = 16  # rows: two candidates on a batch of eight
EXACT = "backbone.dtype=float64"


GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
ONE_DNN = RuntimeError("could not create a primitive")  # of a CPU whose address space is limited (ulimit -v)


def run_short_of(
    rows: int, patch: pytest.MonkeyPatch, out: Path, after: str = "retrain*.partial.*", error: Exception = GPU
) -> list[int]:
    """Steps with gradients over more rows than these find no memory, once a state of such a name was kept.

    Returns:
        The rows of each step that failed; it grows.
    """
    whole, failed = Backbone.row_losses, []

    def row_losses(backbone: Backbone, prompts: torch.Tensor, batch: Batch, *rest: str) -> torch.Tensor:
        wide = torch.is_grad_enabled() and prompts.shape[0] > rows
        if wide and any((out / "state").glob(after)):
            failed.append(int(prompts.shape[0]))
            raise type(error)(*error.args)
        return whole(backbone, prompts, batch, *rest)

    patch.setattr(Backbone, "row_losses", row_losses)
    return failed


def losses(run: Run) -> torch.Tensor:
    lines = sorted(run.lines("candidates.jsonl"), key=lambda line: str(line["id"]))
    found = [line[key] for line in lines for key in ("rank_loss", "select_loss") if line[key] is not None]
    return torch.tensor(found, dtype=torch.float64)


def vectors(run: Run) -> torch.Tensor:
    return load_file(run.out / "ticket" / "ticket.safetensors")["vectors_QH"]


def examples(run: Run) -> int:
    return sum(part["examples"] for part in run.info["cost"]["training"].values())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_models: Models, task_file: Path) -> Callable[..., Run]:
    """A run of a case in pairs, with memory enough."""
    known: dict[tuple[str, ...], Run] = {}

    def run(case: str, *changes: str) -> Run:
        key = (case, *changes)
        if key not in known:
            out = tmp_path_factory.mktemp("pairs") / "run"
            changed = (*CASES[case], EXACT, "search.group=2", *changes)
            known[key] = execute_one(tiny_models("sentence"), task_file, out, *changed)
        return known[key]

    return run


@pytest.mark.parametrize(
    ("case", "after", "error"),
    [("grid, zero", "retrain*.partial.*", GPU), ("halving, zero", "rung1*.partial.*", ONE_DNN)],
)
def test_halves_end_as_smaller_groups_do(
    case: str,
    after: str,
    error: Exception,
    reference: Callable[..., Run],
    tmp_path: Path,
    tiny_models: Models,
    task_file: Path,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        failed = run_short_of(MOST, patch, tmp_path / "run", after, error)
        run = execute_one(tiny_models("sentence"), task_file, tmp_path / "run", *CASES[case], EXACT)
    wanted, other = reference(case), reference(case, "seed=1")
    assert failed == [24], "the first group tried, and learned it for all that come after"
    first, *later = run.info["K_history"]
    assert (first["K"], first["parts"], first["out_of_memory"]) == (3, [2, 1], True)
    assert first["step"] > 0, "from its last kept state, not from the start"
    assert later
    assert all(max(entry["parts"]) <= 2 and not entry["out_of_memory"] for entry in later)
    assert run.info["K"] == 3
    assert sum("memory ran out with 3 candidates" in note for note in run.info["notes"]) == 1
    for found in (losses, vectors):
        assert distance(found(run), found(wanted)) <= 1e-6
    assert distance(losses(other), losses(wanted)) > 1e-2, "negative control"
    assert examples(run) == examples(wanted), "what was done before the halves parted counts once"
    seconds = run.info["results"]["winner"]["seconds"]
    assert seconds > run.info["cost"]["training"]["tune"]["seconds"]
    points = [(point["phase"], point["candidate"], point["step"]) for point in run.lines("metrics.jsonl")]
    assert len(set(points)) == len(points)
    assert len(points) == len(wanted.lines("metrics.jsonl"))


def test_one_candidate_without_room_ends_in_the_message(tmp_path: Path, tiny_models: Models, task_file: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        failed = run_short_of(7, patch, tmp_path / "run", "rank-*")
        with pytest.raises(
            SoftpruneError, match=r"out of memory[\s\S]*tuning\.eval_rows=128 tuning\.accumulate=2"
        ) as told:
            execute_one(tiny_models("sentence"), task_file, tmp_path / "run", *CASES["grid, zero"])
    assert "search.group" not in str(told.value), "it is 1 already"
    assert failed == sorted(failed, reverse=True)
    assert (len(set(failed)), failed[-1]) == (3, 8), "at three candidates, two and one"


def test_killed_after_any_save_of_a_half_it_ends_with_the_same_bits(
    tmp_path: Path, tiny_models: Models, task_file: Path
) -> None:
    def run(out: Path) -> Run:
        return execute_one(tiny_models("sentence"), task_file, out, *CASES["grid, zero"])

    save, tries, out = jobs.FolderKeeper.save, 0, tmp_path / "broken"

    class DiedError(Exception):
        pass

    def die_after_saving(keeper: jobs.FolderKeeper, *arguments: Any) -> None:
        save(keeper, *arguments)
        if any((out / "state").glob("*.part*.partial.*")):
            raise DiedError

    with pytest.MonkeyPatch.context() as patch:
        run_short_of(MOST, patch, tmp_path / "whole")
        whole = run(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        failed = run_short_of(MOST, patch, out)
        patch.setattr(jobs.FolderKeeper, "save", die_after_saving)
        while not (out / "COMPLETE").exists():
            tries += 1
            assert tries < 40
            try:
                execute(whole.recipe, out, "softprune run mine.yaml", "# mine\n" + whole.recipe.dump())
            except DiedError:
                assert not (out / "COMPLETE").exists()
    assert tries > 5
    assert failed == [24], "the group that was parted is not tried whole again"
    broken = Run(out, whole.recipe, Witness(out))
    assert broken.bits() == whole.bits()
    assert broken.info["K_history"][0]["parts"] == whole.info["K_history"][0]["parts"]
    assert any("memory ran out" in note for note in broken.info["notes"])


@pytest.mark.parametrize(
    ("changed", "most"), [({"cluster.retries": [3, 4]}, 5), ({"search.group": [9, 6]}, None), (None, 5)]
)
def test_only_a_memory_setting_makes_a_run_forget_that_memory_ran_out(changed: object, most: int | None) -> None:
    entry = {"work": "retrain-a-9", "K": 9, "parts": [5, 4], "step": 0, "out_of_memory": True, "attempt": 0}
    run = SimpleNamespace(info={"attempts": [{}, {"changed": changed}], "K_history": [entry]})
    assert side_by_side(run) == most  # type: ignore[arg-type]
    assert parts_of(run, "retrain-b-9", 9) == (None if most is None else [5, 4])  # type: ignore[arg-type]
