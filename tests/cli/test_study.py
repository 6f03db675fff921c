"""`study list`, `show` and `run`, with a stand-in for what conducts one; and what other commands say of studies."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from softprune.config import Study, list_shipped, load_study
from softprune.errors import SoftpruneError
from softprune.runs.comparison_record import StudyRecord

Softprune = Callable[..., Any]


class Stand:
    """What `execute` was called with, and what it raises."""

    study: Study | None = None
    name = ""
    command = ""
    error: BaseException | None = None
    fails: tuple[str, ...] = ()
    """Those that it is raised for; empty for all."""


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stand:
    stand = Stand()
    monkeypatch.chdir(tmp_path)

    def execute(study: Study, name: str, root: Path, command: str, *, console: Any) -> Path:
        if stand.error is not None and (not stand.fails or name in stand.fails):
            raise stand.error
        stand.study, stand.name, stand.command = study, name, command
        return root / name

    api = ModuleType("softprune.studies.runner")
    api.execute, api.terminal = execute, lambda folder: f"tables of {folder}"  # type: ignore[attr-defined]
    api.default_name = lambda study, name: f"{name}-{study.size.backbone}-{study.scale}"  # type: ignore[attr-defined]
    api.rewrite = lambda folder: (folder / "index.html").touch()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, api.__name__, api)
    return stand


def test_flags_are_keys_of_the_study(softprune: Softprune, stand: Stand) -> None:
    words = "study run table-4 --backbone tiny-causal --tasks demo,trec --seeds 1 --data d --executor ray --out here"
    answer = softprune(*words.split(), "tuning.epochs=3", "cluster.cpus=2")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "tables of here/table-4-tiny-causal-smoke\n"
    assert stand.study is not None
    assert (stand.study.size.tasks, stand.study.size.seeds) == (("demo", "trec"), 1)
    assert (stand.study.data, stand.study.executor, stand.study.cluster.cpus) == ("d", "ray", 2)
    assert stand.study.change == {"tuning": {"epochs": 3}}
    assert stand.command == f"softprune {words} tuning.epochs=3 cluster.cpus=2"


def test_it_lies_under_its_own_name_or_another(softprune: Softprune, stand: Stand, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("kind: study\ntitle: Mine\nscales: {full: {tasks: [demo]}}\n")
    assert softprune("study", "run", str(mine), "--scale", "full").code == 0
    assert stand.name == "mine-tiny-full"
    (tmp_path / "runs" / "studies" / "other").mkdir(parents=True)
    (tmp_path / "runs" / "studies" / "other" / "index.html").touch()
    answer = softprune("study", "run", str(mine), "--scale", "full", "--name", "other")
    assert stand.name == "other"
    assert "page: runs/studies/other/index.html; tables: runs/studies/other/table-*.md, .csv" in answer.out


def test_show_leaves_out_what_is_not_said(softprune: Softprune, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("kind: study\ntitle: Mine\nscales: {smoke: {tasks: [demo]}}\n")
    assert softprune("study", "show", str(mine)).out == "Mine\n\nsmoke: tiny on demo, 1 seed\n"
    out = softprune("study", "show", "figure-5").out
    assert " hours of one core by itself, estimated from two seeds\n" in out
    assert ": about 90 hours, estimated; not run here\n\n" in out


def test_all_of_them_each_in_its_own_folder(softprune: Softprune, stand: Stand) -> None:
    answer = softprune("study", "run", "all", "--out", "here")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"tables of here/{name}-{load_study(name).size.backbone}-smoke" for name in list_shipped("study")
    ]
    assert "leave --name out" in softprune("study", "run", "all", "--name", "one").err


def test_of_all_of_them_those_that_can_be_made_are(softprune: Softprune, stand: Stand) -> None:
    stand.error, stand.fails = SoftpruneError("this", "that", "fix it"), ("table-4-tiny-smoke", "table-5-tiny-smoke")
    answer = softprune("study", "run", "all", "--out", "here")
    assert answer.code == 2
    assert answer.err.startswith("2 mistakes in the studies\n")
    assert len(answer.out.splitlines()) == len(list_shipped("study")) - 2


def test_ctrl_c_says_how_to_go_on(softprune: Softprune, stand: Stand) -> None:
    stand.error = KeyboardInterrupt()
    answer = softprune("study", "run", "table-4", "--out", "here")
    assert answer.code == 130
    assert "here keeps what is done: run the same command to continue" in answer.err


def test_all_mistakes_are_told_at_once(softprune: Softprune, stand: Stand) -> None:
    words = "study run table-4 --tasks demmo,trecc --seeds none? --scale ful --backbone tiny- tuning.epochz=1"
    answer = softprune(*words.split())
    assert answer.code == 2
    assert answer.err.startswith("6 mistakes in study table-4\n")
    for told in ('"demmo"', '"trecc"', "seeds: ", '"ful"', '"tiny-"', '"epochz"'):
        assert told in answer.err
    assert stand.study is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("study run table4", 'did you mean "table-4"'),
        ("study run demo", "softprune run demo"),
        ("study show nothing", "available: "),
        ("study run no.yaml", "a study file that can be read"),
        ("run table-4", "softprune study run table-4"),
        ("xprompt --recipe table-4", "softprune study run table-4"),
        ("compare --recipe table-4", "softprune study run table-4"),
        ("study run recipe.yaml", "softprune run recipe.yaml"),
        ("run study.yaml", "softprune study run study.yaml"),
        ("tune --recipe study.yaml", "softprune study run study.yaml"),
        ("predict study --input in.jsonl --out out.jsonl", "softprune runs . lists them"),
        ("export study --format safetensors --out out", "a study in study"),
    ],
)
def test_what_goes_by_another_command_is_told(
    softprune: Softprune, stand: Stand, tmp_path: Path, words: str, expected: str
) -> None:
    (tmp_path / "recipe.yaml").write_text("kind: tune\n")
    (tmp_path / "study.yaml").write_text("kind: study\ntitle: t\n")
    (tmp_path / "in.jsonl").write_text("{}\n")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / StudyRecord.FILE).write_text("{}")
    answer = softprune(*words.split())
    assert answer.code == 2
    assert expected in answer.err
    assert stand.study is None


def test_the_list_has_all_that_ship(softprune: Softprune) -> None:
    answer = softprune("study", "list")
    assert answer.code == 0
    assert all(any(line.startswith(f"{name} ") for line in answer.out.splitlines()) for name in list_shipped("study"))


def test_show_has_question_scales_and_published_numbers(softprune: Softprune) -> None:
    answer = softprune("study", "show", "table-4")
    for told in ("Does pruning", "smoke: tiny on trec", "full: google/t5-xl-lm-adapt on wsc", "68.26", "no intervals"):
        assert told in answer.out


def test_report_writes_a_study_anew(softprune: Softprune, stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / StudyRecord.FILE).write_text("{}")
    answer = softprune("report", "here")
    assert (answer.code, answer.out.splitlines()[0]) == (0, "tables of here")
    assert "page: here/index.html" in answer.out


def test_runs_lists_studies(softprune: Softprune, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    work = {"x": 60.0, "y": 5.0}
    record = StudyRecord.begin("study", "python", tasks=["demo", "trec"], backbone="tiny", work=work)
    record.status = "complete"
    (tmp_path / "a" / StudyRecord.FILE).write_text(json.dumps(record.document()))
    answer = softprune("runs", str(tmp_path))
    assert answer.out.splitlines()[1].split()[:6] == ["a", "study", "complete", "demo,trec", "tiny", "-"]
    assert "1m 05s" in answer.out
