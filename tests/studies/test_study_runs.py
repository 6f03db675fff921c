"""Runs that studies share: what tells them apart, that they are made once, and that one waits for the other."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from small_studies import measured, outcome

from softprune.config import Study
from softprune.errors import ManyErrors, SoftpruneError
from softprune.runs.job_folder import FolderLock
from softprune.studies import run_cache
from softprune.studies.runner import execute
from softprune.studies.study_context import StudyContext, make_elsewhere
from softprune.types import WorkItem

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
Small = Callable[..., Study]


def test_a_recipe_has_one_folder_and_another_recipe_another(small: Small) -> None:
    root = Path("/studies")

    def folder(*overrides: str, seed: int = 0, **keys: object) -> str:
        return StudyContext(small(*overrides), root, root / "s").spec("demo", seed, keys).folder

    same = folder()
    assert same.startswith("demo-sentence-xprompt-0-")
    # Another study's title, and where the work is done, change nothing; nor does a default that is named.
    assert same == folder("title=other", "executor=ray", "cluster.cpus=2", "pruning.scope=global")
    assert same == StudyContext(small(), Path("/elsewhere"), Path("/elsewhere/s")).spec("demo", 0).folder
    changes = ("tuning.epochs=3", "task.shots=41", "search.group=1", "backbone.threads=2", "seed=1", "data=there")
    others = {folder(change) for change in changes} | {folder(seed=1), folder(kind="tune")}
    assert len(others | {same}) == len(changes) + 3


def test_files_of_the_studies_count_by_their_place_there(small: Small) -> None:
    def folder(root: str, file: str) -> str:
        keys = {"kind": "tune", "prompt": {"init": "file", "file": file, "mask": file}}
        return StudyContext(small(), Path(root), Path(root) / "s").spec("demo", 0, keys).folder

    here = folder("/a", "/a/files/m.safetensors")
    assert folder("/b/c", "/b/c/files/m.safetensors") == here
    assert len({here, folder("/a", "/b/files/m.safetensors"), folder("/a", "/a/files/n.safetensors")}) == 3


def test_two_studies_make_a_run_once(
    small: Small, conducted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    shutil.copytree(conducted.parent, root)
    made: list[Path] = []
    counted(monkeypatch, made)
    folder = execute(small("title=Another"), "another", root, "test")
    assert made == []
    assert outcome(folder) == outcome(conducted) | {"findings": outcome(folder)["findings"]}
    execute(small("seeds=2", "variants=[{name: a, label: a}]"), "more", root, "test")
    assert [path.name[:24] for path in made] == ["demo-sentence-xprompt-1-"]


def counted(monkeypatch: pytest.MonkeyPatch, made: list[Path]) -> None:
    """Notes the folders of runs that are begun."""
    execute_run = run_cache.EXECUTE["xprompt"]

    def noting(recipe: object, path: Path, *arguments: object, **options: object) -> bool:
        made.append(path)
        return execute_run(recipe, path, *arguments, **options)

    monkeypatch.setattr("softprune.studies.run_cache.EXECUTE", {"xprompt": noting, "tune": noting})


def test_what_another_process_makes_is_waited_for(
    small: Small, conducted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one, a lock of our own here, ends with the run whole. Meanwhile what nobody makes is made."""
    monkeypatch.setattr("softprune.studies.run_cache._LOOK", 0.02)
    study = StudyContext(small(), tmp_path, tmp_path / "study", Console(file=(said := io.StringIO()), width=200))
    spec, free = study.spec("demo", 0), study.spec("demo", 0, {"kind": "tune", "tuning.epochs": 1})
    first: list[bool] = []
    path = tmp_path / "runs" / spec.folder
    path.mkdir(parents=True)
    lock = FolderLock(path)

    def end() -> None:
        until = time.monotonic() + 60
        while "waiting" not in said.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
        first.append((tmp_path / "runs" / free.folder / "COMPLETE").exists())
        shutil.copytree(conducted.parent / "runs" / spec.folder, path, dirs_exist_ok=True)
        lock.release()

    other = threading.Thread(target=end)
    other.start()
    made = study.make({"waited for": spec, "free": free})["waited for"]
    other.join()
    assert first == [True]
    assert said.getvalue().count("another process makes") == 1
    assert made.record.document() == json.loads((conducted.parent / "runs" / spec.folder / "run.json").read_text())


def test_a_run_that_fails_is_named(small: Small, tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match=r"\(run demo-sentence-tune-0-[0-9a-f]{10}\)[\s\S]*x\.npy"):
        StudyContext(small(), tmp_path, tmp_path / "s").grid(
            {"kind": "tune", "prompt": {"init": "file", "file": "x.npy"}}
        )
    wrong = {"kind": "tune", "prompt": {"init": "file", "file": "x.npy", "mask": "y.safetensors"}}
    with pytest.raises(ManyErrors, match=r"2 mistakes in run demo-sentence-tune-0-[\s\S]*x\.npy[\s\S]*y\.safetensors"):
        StudyContext(small(), tmp_path, tmp_path / "s").grid(wrong)


def test_a_worker_must_see_the_same_folder(small: Small, tmp_path: Path) -> None:
    item = WorkItem("run", {"values": dict(StudyContext(small(), tmp_path, tmp_path / "s").spec("demo", 0).values)})
    with pytest.raises(SoftpruneError, match="an --out that all nodes share"):
        make_elsewhere(str(tmp_path), "mark", item)
    assert not list(tmp_path.iterdir())


def test_work_is_done_once_and_reads_back_as_it_was_made(small: Small, tmp_path: Path) -> None:
    study = StudyContext(small(), tmp_path, tmp_path / "s")
    calls: list[int] = []

    def compute() -> object:
        calls.append(1)
        return {"pair": (1, 0.1), "none": float("nan")}

    first = study.once("a/b c", compute)
    assert first == study.once("a/b c", compute) == {"pair": [1, 0.1], "none": None}
    assert len(calls) == 1
    assert [path.name for path in (tmp_path / "s" / "work").iterdir()] == ["a-b-c.json"]


def test_kept_files_are_named_after_their_content(small: Small, tmp_path: Path) -> None:
    study = StudyContext(small(), tmp_path, tmp_path / "s")
    first, again, other = (study.keep("a.bin", data) for data in (b"1", b"1", b"2"))
    assert first == again != other
    assert (first.read_bytes(), other.read_bytes(), first.suffix) == (b"1", b"2", ".bin")
    before = first.stat().st_mtime_ns
    study.keep("a.bin", b"1")
    assert first.stat().st_mtime_ns == before


def test_an_experiment_may_go_on_from_runs(small: Small, tmp_path: Path) -> None:
    study = StudyContext(small(), tmp_path, tmp_path / "s")
    found = measured(study)
    assert found == measured(study)
    assert len(found.tables[0].rows) == 1
    runs = study.list_runs()
    assert [run.kind for run in runs] == ["tune", "tune"]
    assert all(run.seconds is not None and run.seconds > 0 for run in runs)
    assert set(study.list_work()) == {"norms"}
