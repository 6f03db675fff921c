"""A study's folder: a complete one stays, settings are held where findings depend on them, failures are noted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_studies import outcome

from records import reopen
from softprune.config import Study
from softprune.errors import ManyErrors, SoftpruneError
from softprune.runs.comparison_record import StudyRecord
from softprune.runs.job_folder import FolderLock
from softprune.runs.listing import list_runs
from softprune.studies.findings import load_findings
from softprune.studies.folder import read_finished
from softprune.studies.runner import default_name, execute, rewrite, run_study, terminal
from softprune.studies.study_context import StudyContext

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
Small = Callable[..., Study]


@pytest.fixture
def copied(conducted: Path, tmp_path: Path) -> Path:
    """A finished study with its runs, to do anything to."""
    shutil.copytree(conducted.parent, tmp_path / "root")
    return tmp_path / "root" / conducted.name


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "study.json").read_text())
    return found


def bytes_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_what_a_finished_study_leaves(conducted: Path) -> None:
    names = {path.name for path in conducted.iterdir()} - {".lock", "index.html"}
    info = record(conducted)
    titles = [
        *(table.name for table in load_findings(read_finished(conducted, StudyRecord).findings).tables),
        "published-1",
    ]
    assert titles[:2] == ["scores", "differences"]
    tables = {f"table-{name}.{ending}" for name in titles for ending in ("md", "csv")}
    assert names == {"resolved.yaml", "study.json", "study.md", "COMPLETE"} | tables
    assert (info["kind"], info["status"], info["tasks"], len(info["attempts"])) == ("study", "complete", ["demo"], 1)
    assert {run["folder"] for run in info["runs"]} == {path.name for path in (conducted.parent / "runs").iterdir()}
    assert len(info["runs"]) == 2


def test_a_complete_one_is_left_alone(small: Small, copied: Path) -> None:
    before = bytes_of(copied.parent)
    execute(small("title=Other", "executor=ray"), copied.name, copied.parent, "again")
    assert bytes_of(copied.parent) == before
    with pytest.raises(SoftpruneError, match=r"scale\.seeds: 1 there, 2 now[\s\S]*--name small-2: finished"):
        execute(small("seeds=2"), copied.name, copied.parent, "again")
    assert bytes_of(copied.parent) == before


def test_settings_are_held_once_work_depends_on_them(small: Small, copied: Path) -> None:
    """Runs are told apart by their recipes, so before that an unfinished study may have others."""
    reopen(copied, "study.json")
    execute(small(other := "variants=[{name: tuned, label: whole, row: tuned}]"), copied.name, copied.parent, "again")
    assert "label: whole" in (copied / "resolved.yaml").read_text()
    reopen(copied, "study.json")
    (copied / "work").mkdir()
    (copied / "work" / "piece.json").write_text('{"seconds": 1, "found": 2}')
    with pytest.raises(SoftpruneError, match=r"variants\.tuned\.label: whole there, tuned now"):
        execute(small(other.replace("whole", "tuned")), copied.name, copied.parent, "again")


def test_a_failure_is_noted_and_the_same_command_goes_on(
    small: Small, copied: Path, conducted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(copied)

    def failing(study: StudyContext) -> None:
        study.once("piece", lambda: 1)  # without any work it would leave nothing
        raise SoftpruneError("a", "b", "c")

    with monkeypatch.context() as patched:
        patched.setattr("softprune.studies.experiments.variants.conduct", failing)
        with pytest.raises(SoftpruneError, match="expected: a"):
            execute(small(), copied.name, copied.parent, "go")
    info = record(copied)
    assert (info["status"], info["error"]) == ("failed", "expected: a\nfound:    b\ndo:       c")
    with pytest.raises(SoftpruneError, match=r"failed:\n  expected: a[\s\S]*fix that, then go on: go"):
        read_finished(copied, StudyRecord)
    shutil.rmtree(copied / "work")
    execute(small(), copied.name, copied.parent, "go")
    assert len(record(copied)["attempts"]) == 2
    assert record(copied)["error"] is None
    assert outcome(copied) == outcome(conducted)


@pytest.mark.parametrize("override", ["data=nowhere", "variants=[]"])
def test_a_study_that_fails_before_any_work_leaves_nothing(small: Small, copied: Path, override: str) -> None:
    before = bytes_of(copied.parent)
    for root in (copied.parent, copied.parent.parent / "new" / "root"):
        with pytest.raises(SoftpruneError):
            execute(small(override, "tasks=trec"), "refused", root, "go")
        assert not (root / "refused").exists()
    assert not (copied.parent.parent / "new").exists()
    assert bytes_of(copied.parent) == before


def test_a_bug_is_noted_and_stays_a_bug(small: Small, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reopen(copied, "study.json")

    def wrong(*_: object) -> None:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr("softprune.studies.experiments.variants.conduct", wrong)
    with pytest.raises(ZeroDivisionError):
        execute(small(), copied.name, copied.parent, "go")
    assert record(copied)["error"] == "bug"


def test_a_study_that_runs_or_was_interrupted_says_so(copied: Path) -> None:
    info = record(copied)
    del info["findings"]
    (copied / "study.json").write_text(json.dumps(info | {"status": "running"}))
    with pytest.raises(SoftpruneError, match="was interrupted"):
        terminal(copied)
    lock = FolderLock(copied)
    with pytest.raises(SoftpruneError, match="is running"):
        rewrite(copied)
    lock.release()
    (copied / "study.json").write_text("{")
    with pytest.raises(SoftpruneError, match=r"a study\.json as softprune writes it"):
        read_finished(copied, StudyRecord)


def test_two_processes_do_not_conduct_one_study(small: Small, copied: Path) -> None:
    reopen(copied, "study.json")
    lock = FolderLock(copied)
    with pytest.raises(SoftpruneError, match="held by the live process"):
        execute(small(), copied.name, copied.parent, "go")
    lock.release()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("tasks=demmo",), r'a known task[\s\S]*did you mean "demo"'),
        (("tasks=",), "demo"),
        (("experiment=varants",), r'a known experiment[\s\S]*did you mean "variants"'),
        (("variants=[]",), "variants that the study compares"),
    ],
)
def test_what_can_be_told_first_is_told_first(
    small: Small, tmp_path: Path, overrides: tuple[str, ...], expected: str
) -> None:
    if overrides == ("tasks=",):
        assert small(*overrides).size.tasks == (expected,)
        return
    with pytest.raises(SoftpruneError, match=expected):
        execute(small(*overrides), "s", tmp_path, "go")
    assert not (tmp_path / "runs").exists()


def test_all_unknown_tasks_are_told(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ManyErrors, match=r'2 mistakes[\s\S]*"aa"[\s\S]*"bb"'):
        execute(small("tasks=aa,demo,bb"), "s", tmp_path, "go")
    assert not list(tmp_path.iterdir())


def test_missing_data_is_told_with_the_run_and_may_be_mended(small: Small, copied: Path) -> None:
    with pytest.raises(SoftpruneError, match=r"run trec-sentence-xprompt-0"):
        execute(small("tasks=trec", f"data={copied}/none"), "s", copied.parent, "go")
    assert not copied.with_name("s").exists()
    execute(small(), "s", copied.parent, "go")
    assert record(copied.with_name("s"))["status"] == "complete"


def test_from_python_it_lies_under_its_name(small: Small, copied: Path) -> None:
    made = small("title=Python")
    folder = run_study(made, copied.parent)
    assert folder == copied.parent / "study-sentence-smoke"
    assert default_name(made, "a b/c") == "a-b-c-sentence-smoke"
    assert outcome(folder)["bits"] == outcome(copied)["bits"]


def test_listings_have_it_with_its_runs(conducted: Path) -> None:
    found = {run.name: run for run in list_runs(conducted.parent)}
    assert len(found) == 3
    study = found[conducted.name]
    assert (study.kind, study.status, study.task, study.value) == ("study", "complete", "demo", None)
    assert study.backbone == record(conducted)["backbone"]
    assert {run.kind for run in found.values()} == {"study", "xprompt"}


def test_findings_read_back_as_they_were(conducted: Path) -> None:
    found = load_findings(read_finished(conducted, StudyRecord).findings)
    assert found.document() == load_findings(json.loads(json.dumps(found.document()))).document()
    changed = json.loads(json.dumps(found.document()))
    changed["tables"][0]["rows"][0][1]["value"] += 0.01
    assert load_findings(changed) != found
