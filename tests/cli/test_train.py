"""The commands that run recipes, with a stand-in for what they call."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from records import run_document
from softprune.cli.options import recipe_flags
from softprune.cli.train import default_out
from softprune.config import Recipe, flat_fields, load_config, resolve
from softprune.errors import SoftpruneError
from softprune.pipelines import adapt as _adapting  # noqa: F401 - takes from the real pruning.api before a stand-in is there

Softprune = Callable[..., Any]
XPROMPT_FLAGS = recipe_flags("xprompt")


@dataclass
class Stand:
    """What `execute` was called with, and what it raises."""

    recipe: Recipe | None = None
    out: Path | None = None
    command: str = ""
    text: str = ""
    error: BaseException | None = None
    report_error: SoftpruneError | None = None
    others: list[Path] | None = None


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stand:
    stand = Stand()
    monkeypatch.chdir(tmp_path)

    def record(out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_text(json.dumps(run_document()))

    record(Path("somewhere"))

    def execute(recipe: Recipe, out: Path, command: str, text: str, *, finish: Any, console: Any) -> bool:
        if stand.error is not None:
            raise stand.error
        stand.recipe, stand.out, stand.command, stand.text = recipe, out, command, text
        record(out)
        finish(out)
        return True

    def write_report(out: Path, others: Sequence[Path] = ()) -> Path:
        if stand.report_error is not None:
            raise stand.report_error
        stand.others = list(others)
        page = out / "report" / "index.html"
        page.parent.mkdir(parents=True)
        page.touch()
        return page

    api, report = ModuleType("softprune.pipelines.xprompt"), ModuleType("softprune.report")
    api.execute = execute  # type: ignore[attr-defined]
    report.comparison_table = lambda out: f"table of {out}"  # type: ignore[attr-defined]
    report.write_report = write_report  # type: ignore[attr-defined]
    report.explain_comparisons = lambda run, others: [f"{run} beside {other}" for other in others]  # type: ignore[attr-defined]
    for module in (api, report):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return stand


def test_run_resolves_executes_and_shows(softprune: Softprune, stand: Stand) -> None:
    answer = softprune("run", "paper", "task.id=cb", "seed=3", "--out", "somewhere")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "table of somewhere\nreport: somewhere/report/index.html\n"
    assert stand.recipe == load_config(Recipe, "paper", ["task.id=cb", "seed=3"])
    assert stand.command == "softprune run paper task.id=cb seed=3 --out somewhere"
    assert stand.text.startswith("# given on the command line: task.id=cb\n# given on the command line: seed=3\n")
    assert "google/t5-large-lm-adapt" in stand.text


def test_a_run_without_its_report_is_a_run(softprune: Softprune, stand: Stand) -> None:
    stand.report_error = SoftpruneError("matplotlib", "no such package", 'pip install "softprune[report]"')
    answer = softprune("run", "demo", "--out", "somewhere")
    assert (answer.code, answer.out) == (0, "table of somewhere\n")
    assert "no such package" in answer.err
    assert "then: softprune report somewhere" in answer.err


def test_report_writes_and_shows(softprune: Softprune, stand: Stand) -> None:
    assert softprune("report", "somewhere").out == "table of somewhere\nreport: somewhere/report/index.html\n"
    stand.report_error = SoftpruneError("a run", "nothing", "give a run folder")
    assert softprune("report", "elsewhere").code == 2


def test_report_takes_runs_to_show_beside_it(softprune: Softprune, stand: Stand) -> None:
    answer = softprune("report", "somewhere", "one", "two")
    assert (answer.code, stand.others) == (0, [Path("one"), Path("two")])
    assert answer.out.splitlines()[-2:] == ["somewhere beside one", "somewhere beside two"]


def test_what_cannot_stand_beside_a_run_is_refused(softprune: Softprune, stand: Stand, tmp_path: Path) -> None:
    for record in ("compare.json", "study.json"):
        folder = tmp_path / record.partition(".")[0]
        folder.mkdir()
        (folder / record).touch()
        for folders in (("somewhere", str(folder)), (str(folder), "somewhere")):
            answer = softprune("report", *folders)
            assert answer.code == 2
            assert "report comparisons, studies and runs of token pruning one at a time" in answer.err


def test_the_headline_stands_under_the_table(softprune: Softprune, stand: Stand, tmp_path: Path) -> None:
    pruned, tuned = tmp_path / "pruned", tmp_path / "tuned"
    difference = {"comparison": "winner - control", "value": 0.0, "low": -0.1, "high": 0.1, "p": 1.0}
    sentence = {"sentence": "Winner minus control: no difference shown."}
    headline = {**difference, "interpretable": True, "significance_claimed": True, **sentence}
    for folder, found in ((pruned, headline), (tuned, None)):
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(run_document(headline=found)))
    assert "Winner minus control: no difference shown.\n" in softprune("report", str(pruned)).out
    assert "Winner" not in softprune("report", str(tuned)).out


def test_run_without_overrides_hands_on_the_file_as_it_is(softprune: Softprune, stand: Stand, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# mine\nkind: tune\n")
    assert softprune("run", str(path)).code == 0
    assert stand.text == "# mine\nkind: tune\n"
    assert stand.out == Path("runs/demo-tiny-tune")


def test_every_flag_is_a_key_that_exists() -> None:
    keys = {field.key for field in flat_fields()}
    assert set(XPROMPT_FLAGS.values()) <= keys
    assert len(set(XPROMPT_FLAGS.values())) == len(XPROMPT_FLAGS)


def test_flags_become_overrides(softprune: Softprune, stand: Stand) -> None:
    given = {
        "--backbone": "org/model",
        "--family": "causal",
        "--dtype": "float32",
        "--device": "cpu",
        "--threads": "2",
        "--task": "cb",
        "--data": "12",
        "--shots": "16",
        "--limit-report": "50",
        "--tokens": "8",
        "--pieces": "4",
        "--init": "text",
        "--init-text": "Is it: so? #1",
        "--epochs": "3",
        "--batch-size": "4",
        "--optimiser": "adamw",
        "--lr": "relative: 0.5",
        "--loss": "rank",
        "--patience": "2",
        "--removal": "zero",
        "--levels": "token",
        "--scope": "per_token",
        "--importance": "paper",
        "--teacher": "control",
        "--unlabelled": "rest",
        "--strategy": "grid",
        "--token-ratios": "0.1,0.3",
        "--piece-ratios": "0.5",
        "--group": "4",
        "--protocol": "paper",
        "--objective": "best",
        "--fresh-seeds": "0",
        "--seed": "9",
        "--executor": "ray",
    }
    assert given.keys() == XPROMPT_FLAGS.keys() - {"--prompt-file", "--form"}  # they go with another --init
    words = [word for pair in given.items() for word in pair]
    answer = softprune("xprompt", *words, "tuning.accumulate=2", "tuning.epochs=5")
    assert answer.code == 0, answer.err
    assert stand.recipe is not None
    resolved = stand.recipe.resolved()
    assert resolved["tuning"]["lr"] == {"relative": 0.5}
    assert resolved["search"]["token_ratios"] == [0.1, 0.3]
    assert resolved["prompt"]["text"] == "Is it: so? #1"
    assert resolved["task"]["data"] == "12"
    assert (resolved["tuning"]["epochs"], resolved["tuning"]["accumulate"]) == (5, 2)  # overrides come last
    defaults = resolve().resolved()
    for key in (XPROMPT_FLAGS[flag] for flag in given):
        section, _, name = key.rpartition(".")
        assert (resolved[section] if section else resolved)[name] != (defaults[section] if section else defaults)[name]
    assert stand.out == Path("runs/cb-model-xprompt")


def test_a_prompt_file_has_a_flag(softprune: Softprune, stand: Stand) -> None:
    assert softprune("xprompt", "--init", "file", "--prompt-file", "mine.npy").code == 0
    assert stand.recipe == resolve(["prompt.init=file", "prompt.file=mine.npy"])
    assert stand.recipe is not None
    assert stand.recipe.prompt.tokens_of_file


@pytest.mark.parametrize("kind", ["xprompt", "tune"])
def test_without_flags_a_command_is_the_defaults_of_its_kind(softprune: Softprune, stand: Stand, kind: str) -> None:
    assert softprune(kind).code == 0
    assert stand.recipe == resolve([f"kind={kind}"])


def test_flags_change_the_recipe_they_begin_with(softprune: Softprune, stand: Stand) -> None:
    assert softprune("tune", "--recipe", "paper", "--epochs", "2").code == 0
    assert stand.recipe == load_config(Recipe, "paper", ["kind=tune", "tuning.epochs=2"])


def test_tune_has_no_flags_of_pruning(softprune: Softprune, stand: Stand) -> None:
    assert set(XPROMPT_FLAGS) - set(recipe_flags("tune")) == {
        "--executor",
        "--pieces",
        *("--removal", "--levels", "--scope", "--importance", "--teacher", "--unlabelled"),
        *("--strategy", "--token-ratios", "--piece-ratios", "--group"),
        *("--objective", "--fresh-seeds"),
    }
    answer = softprune("tune", "--token-ratios", "0.5")
    assert answer.code == 2
    assert "--token-ratios" in answer.err
    assert stand.recipe is None
    assert softprune("tune", "pruning.removal=zero").code == 0, "as a key it may stand in a recipe of either kind"


def test_help_texts_are_the_recipes(softprune: Softprune) -> None:
    answer = softprune("xprompt", "--help")
    text = " ".join(answer.out.split())
    fields = {field.key: field for field in flat_fields()}
    for flag, key in XPROMPT_FLAGS.items():
        assert flag in text
        assert " ".join(fields[key].description.split()).replace("-", "") in text.replace("- ", "").replace("-", "")
        assert f"({key})" in text


def test_all_mistakes_in_one_message(softprune: Softprune, stand: Stand) -> None:
    answer = softprune("xprompt", "--loss", "rnk", "--shots", "none", "--epochs", "0", "oops")
    assert answer.code == 2
    assert answer.err.startswith("3 mistakes in the flags\n\nexpected: ")
    assert "Traceback" not in answer.err
    assert stand.recipe is None


def test_an_error_of_the_run_is_told_plainly(softprune: Softprune, stand: Stand) -> None:
    stand.error = SoftpruneError("an H that S divides", "H 10, S 16", "set prompt.pieces to 5")
    answer = softprune("run", "demo")
    assert answer.code == 2
    assert answer.err == "expected: an H that S divides\nfound:    H 10, S 16\ndo:       set prompt.pieces to 5\n"


def test_an_interrupt_says_how_to_go_on(softprune: Softprune, stand: Stand) -> None:
    stand.error = KeyboardInterrupt()
    answer = softprune("run", "demo")
    assert answer.code == 130
    assert "run the same command to continue" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "demo-tiny-xprompt"),
        (["task.id=my/own task.yaml", "backbone.name=./models/bert base/", "kind=tune"], "own-task-bert-base-tune"),
    ],
)
def test_default_out(overrides: list[str], name: str) -> None:
    assert default_out(resolve(overrides)) == Path("runs") / name


def test_help_has_no_doubled_defaults(softprune: Softprune) -> None:
    assert not re.search(r"\[default:[^\]]*\]\s*\[default:", softprune("tune", "--help").out)
