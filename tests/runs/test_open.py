"""What `RunFolder.open` refuses, what it takes up, and what a kill leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from softprune.errors import SoftpruneError
from softprune.runs.job_folder import is_held
from softprune.runs.run_folder import RunFolder, Saved

pytestmark = pytest.mark.slow

Begin = Callable[..., RunFolder]

WORKER = textwrap.dedent(
    """
    import itertools, json, sys
    from softprune.runs.run_folder import RunFolder, Saved
    import torch

    run = RunFolder.open(sys.argv[1], recipe_text="kind: xprompt\\n", resolved=json.loads(sys.argv[2]),
                         kind="xprompt", command="softprune run x")
    run.once("first", lambda: Saved({"x": torch.arange(5.0) / 3}, {"n": 1}))
    run.pin("K", lambda: 7)
    print("ready", flush=True)
    for step in itertools.count():
        run.append_metrics([{"phase": "tune", "step": step}])
        run.save_checkpoint("tune", Saved({"x": torch.full((50_000,), float(step))}, {"step": step}))
        with run.editing() as record:
            record.cost.steps = step
    """
)


@contextmanager
def killed_worker(path: Path, resolved: dict[str, object]) -> Iterator[int]:
    """A process that writes without end; inside it works, at the end it is killed wherever it is."""
    arguments = [sys.executable, "-c", WORKER, str(path), json.dumps(resolved)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            yield worker.pid
            time.sleep(0.2)
        finally:
            worker.kill()


def test_a_killed_run_is_readable_and_taken_up(begin: Begin, resolved: dict[str, object], tmp_path: Path) -> None:
    with killed_worker(tmp_path / "run", resolved) as pid:
        assert is_held(tmp_path / "run")
        with pytest.raises(SoftpruneError, match=rf"held by the live process {pid}"):
            begin()
    (tmp_path / "run" / ".run.json.1.tmp").write_text("{")
    with begin() as run:
        assert not list(run.path.glob(".*.tmp"))
        saved = run.load_checkpoint("tune")
        step = -1 if saved is None else saved.meta["step"]
        if saved is not None:
            assert saved.tensors["x"].unique().tolist() == [float(step)]
        run.trim_metrics("tune", None, step)
        steps = [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(step + 1))
        assert run.pin("K", lambda: 1) == 7
        assert run.once("first", lambda: Saved({}, {})).meta == {"n": 1}


def test_a_kill_before_run_json_leaves_a_folder_that_opens(begin: Begin, tmp_path: Path) -> None:
    begin().close()
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / "resolved.yaml").unlink()
    with begin() as run:
        assert run.record.status == "running"


def test_another_recipe_is_refused_with_the_keys_that_differ(begin: Begin) -> None:
    begin().close()
    with pytest.raises(SoftpruneError) as caught:
        begin(seed=4, tuning={"lr": {"relative": 0.3}, "weight_decay": 1e-5})
    message = str(caught.value)
    assert "seed: 3 there, 4 now" in message
    assert "tuning.lr: 0.3 there, (absent) now" in message
    assert "tuning.lr.relative: (absent) there, 0.3 now" in message
    assert "weight_decay" not in message
    begin().close()  # and nothing is lost or held


def test_a_foreign_folder_is_refused_and_untouched(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    with pytest.raises(SoftpruneError, match=r"thesis\.txt"):
        begin()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_taken(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    begin().close()


@pytest.mark.parametrize("text", ["{torn", "[]", '{"schema": 2}'])
def test_a_run_json_of_something_else_is_refused(begin: Begin, tmp_path: Path, text: str) -> None:
    begin().close()
    (tmp_path / "run" / "run.json").write_text(text)
    with pytest.raises(SoftpruneError, match=r"a run\.json as softprune writes it"):
        begin()


def test_a_folder_without_resolved_yaml_is_refused(begin: Begin, tmp_path: Path) -> None:
    begin().close()
    (tmp_path / "run" / "resolved.yaml").unlink()
    with pytest.raises(SoftpruneError, match=r"its resolved\.yaml can't be read"):
        begin()


@pytest.mark.parametrize("name", ["run", "run/deeper"])
def test_a_regular_file_in_the_way_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(SoftpruneError, match="a regular file"):
        RunFolder.open(tmp_path / name, recipe_text="", resolved={}, kind="tune", command="")


def test_two_holders_in_one_process_are_refused(begin: Begin) -> None:
    with begin(), pytest.raises(SoftpruneError, match="held by"):
        begin()
    begin().close()


def test_keys_that_may_change_do_and_are_recorded(begin: Begin, tmp_path: Path) -> None:
    free = ("search.group", "tuning.eval_rows")
    begin(search={"group": 4}, tuning={"eval_rows": 8}).close()
    with begin(may_change=free, search={"group": 2}, tuning={"eval_rows": None}) as run:
        assert run.record.attempts[1].changed == {"search.group": [4, 2]}  # null asks for nothing
    with begin(may_change=free, search={"group": 2}, tuning={"eval_rows": None}) as run:
        assert run.record.attempts[2].changed is None
    with pytest.raises(SoftpruneError, match=r"found:    seed: 3 there, 4 now\n"):
        begin(may_change=free, search={"group": 1}, tuning={"eval_rows": 8}, seed=4)
    with pytest.raises(SoftpruneError, match="group: 2 there, 1 now"):
        begin(may_change=("tuning.eval_rows",), search={"group": 1}, tuning={"eval_rows": 8})


def test_a_lock_names_only_a_live_holder(begin: Begin, tmp_path: Path) -> None:
    with begin():
        assert (tmp_path / "run" / ".lock").read_text().strip().isdigit()
    assert (tmp_path / "run" / ".lock").read_bytes() == b""
