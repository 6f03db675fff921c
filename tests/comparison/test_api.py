"""Whole comparisons on a tiny model: what they leave, what is never run again, what isn't defined, what fails."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparisons import outcome
from rich.console import Console

from records import reopen
from softprune.config import CompareRecipe
from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import bootstrap_interval
from softprune.studies import run_cache
from softprune.studies.comparison import runner
from softprune.studies.comparison.runner import compare_methods, execute, rewrite, terminal

Small = Callable[..., CompareRecipe]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def run(recipe: CompareRecipe, out: Path) -> bool:
    return execute(recipe, out, "test", recipe.dump())


def stamps(out: Path) -> dict[str, int]:
    """When each file of the runs was written; a look into a folder touches its lock."""
    files = (path for path in (out / "cells").rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.stat().st_mtime_ns for path in files}


def rows_of(out: Path) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads((out / "compare.json").read_text())["rows"]}


def info_of(out: Path, cell: str) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((out / "cells" / cell / "run.json").read_text())
    return info


def test_it_leaves_runs_tables_and_a_page(compared: Path) -> None:
    names = {path.name for path in compared.iterdir()} - {".lock"}
    assert names == {
        *("recipe.yaml", "resolved.yaml", "compare.json", "COMPLETE", "cells", "figures"),
        *("table.csv", "table.md", "table.tex", "index.html"),
    }
    assert {path.name for path in (compared / "cells").iterdir()} == {
        *("prompt-0", "prompt-1", "xprompt-0", "xprompt-1")
    }
    assert all((path / "COMPLETE").exists() for path in (compared / "cells").iterdir())


def test_rows_are_what_the_runs_say(compared: Path) -> None:
    rows = rows_of(compared)
    assert list(rows) == ["prompt", "xprompt", "xprompt-control", "xprompt-random", "zero_shot", "constant"]
    runs = [info_of(compared, f"prompt-{seed}") for seed in (0, 1)]
    values = [info["results"]["tuned"]["value"] for info in runs]
    prompt = rows["prompt"]
    assert prompt["values"] == values
    assert prompt["mean"] == pytest.approx(sum(values) / 2)
    assert prompt["sd"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert prompt["difference"] is None
    assert prompt["lr"] == [info["settings"]["lr"] for info in runs]
    assert prompt["multiples"] == [next(name for name, row in info["sweep"].items() if row["chosen"]) for info in runs]
    assert prompt["trainable"] == prompt["stored"] == 4 * 32
    winners = [info_of(compared, f"xprompt-{seed}") for seed in (0, 1)]
    assert rows["xprompt"]["values"] == [info["results"]["winner"]["value"] for info in winners]
    assert rows["xprompt"]["stored"] == sum(info["ticket"]["parameters"] for info in winners) / 2
    assert rows["xprompt"]["trainable"] == 4 * 32
    assert rows["xprompt-control"]["values"] == [info["results"]["control"]["value"] for info in winners]
    assert rows["xprompt-random"]["values"] == [info["results"]["random"]["value"] for info in winners]
    assert rows["xprompt-random"]["stored"] == rows["xprompt"]["stored"]
    assert rows["zero_shot"]["values"] == [runs[0]["results"]["zero_shot"]["value"]]
    assert rows["constant"]["values"] == [runs[0]["results"]["constant"]["value"]]


def test_differences_are_of_the_means(compared: Path) -> None:
    rows = rows_of(compared)
    for name in ("xprompt", "xprompt-control", "xprompt-random", "zero_shot"):
        found = rows[name]["difference"]
        assert found["against"] == "prompt"
        assert found["value"] == pytest.approx(rows[name]["mean"] - rows["prompt"]["mean"])
        assert found["low"] <= found["value"] <= found["high"]


def test_an_interval_is_that_of_the_predictions(compared: Path) -> None:
    """Of one seed it is the run's own bootstrap; of two it differs from either."""
    text = (compared / "cells/prompt-0/predictions/zero_shot.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    counts = [[float(line["predicted"] == line["gold"]), 1.0] for line in lines]
    by_hand = bootstrap_interval(counts, load_task("demo").metric.score, seed=0, resamples=200)
    assert rows_of(compared)["zero_shot"]["interval"] == [by_hand.low, by_hand.high]
    assert rows_of(compared)["prompt"]["interval"] != [by_hand.low, by_hand.high]


def test_all_runs_report_on_the_same_examples_and_train_on_others(compared: Path) -> None:
    drawn = [
        info_of(compared, f"{method}-{seed}")["task"]["indices"] for method in ("prompt", "xprompt") for seed in (0, 1)
    ]
    assert len({tuple(each["report"]) for each in drawn}) == 1
    assert drawn[0]["train"] == drawn[2]["train"] != drawn[1]["train"]


def test_costs_are_measured(compared: Path) -> None:
    for name in ("prompt", "xprompt"):
        row = rows_of(compared)[name]
        assert all(row[cost] > 0 for cost in ("seconds", "seconds_per_epoch", "examples_per_second"))
        assert row["peak_memory"] is None or row["peak_memory"] > 2**26
        assert set(row["latency"]) == {"1", "8", "32"}
        assert row["latency"]["8"]["ratio"] == pytest.approx(
            row["latency"]["8"]["with_p50"] / row["latency"]["8"]["without_p50"]
        )


def test_xprompts_retraining_uses_the_rate_that_the_sweep_chose(compared: Path) -> None:
    info = info_of(compared, "xprompt-0")
    chosen = next(row for row in info["sweep"].values() if row["chosen"])
    assert info["settings"]["lr"] == chosen["lr"]
    works = set(info["cost"]["training"])
    assert {"sweep-0.3", "sweep-1"} <= works
    assert "tune" not in works  # the chosen training isn't made again


def test_a_complete_one_is_left_as_it_is(compared: Path, small: Small) -> None:
    before = stamps(compared), (compared / "compare.json").stat().st_mtime_ns
    assert run(small("tuning.sweep=0.3,1"), compared) is False
    assert (stamps(compared), (compared / "compare.json").stat().st_mtime_ns) == before


def test_finished_runs_are_never_run_again(small: Small, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe = small("methods=prompt")
    run(recipe, out)
    before, wanted = stamps(out), outcome(out)
    reopen(out, "compare.json")
    (out / "table.md").unlink()
    assert run(recipe, out) is True
    assert stamps(out) == before
    assert outcome(out) == wanted
    assert (out / "table.md").exists()


def test_another_recipe_is_refused(compared: Path, small: Small) -> None:
    with pytest.raises(SoftpruneError, match=r"tuning\.epochs: 2 there, 3 now"):
        run(small("tuning.sweep=0.3,1", "tuning.epochs=3"), compared)
    with pytest.raises(SoftpruneError, match="a new folder, or the folder of a comparison"):
        run(small(), compared / "cells" / "prompt-0")


def test_a_method_that_the_model_has_no_place_for_is_told_and_the_others_go_on(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {"prefix": "no such modules"}
    monkeypatch.setattr(runner, "why_not_defined", lambda name, described: reasons.get(name))
    out = compare_methods(small("methods=prefix,prompt", "seeds=1"), tmp_path / "out")
    info = json.loads((out / "compare.json").read_text())
    assert info["not_defined"] == {"prefix": "no such modules"}
    assert info["reference"] == "prompt"
    assert not (out / "cells" / "prefix-0").exists()
    assert "prefix: not defined: no such modules" in (out / "table.md").read_text()
    assert "prefix: not defined: no such modules" in (out / "table.tex").read_text()
    assert "<strong>prefix</strong>: not defined: no such modules" in (out / "index.html").read_text()


def adapting(monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], bool]) -> list[Path]:
    """Stands in for runs of kind adapt; the folders that it was asked for."""
    asked: list[Path] = []

    def stand_in(recipe: Any, out: Path, command: str, text: str, *, finish: Any = None, console: Any = None) -> bool:
        asked.append(out)
        return act(out)

    own = run_cache.EXECUTE

    class Stand:
        def __getitem__(self, kind: str) -> Any:
            return stand_in if kind == "adapt" else own[kind]

    monkeypatch.setattr(run_cache, "EXECUTE", Stand())
    return asked


def test_a_run_that_is_refused_before_any_work_is_not_defined(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(out: Path) -> bool:
        raise SoftpruneError("a model with such modules", "none", "choose another")

    asked = adapting(monkeypatch, refuse)
    out = compare_methods(small("methods=lora,prompt"), tmp_path / "out")
    info = json.loads((out / "compare.json").read_text())
    assert info["not_defined"] == {"lora": "none (expected: a model with such modules)"}
    assert [path.name for path in asked] == ["lora-0"]  # not tried on the next seed
    assert {row["name"] for row in info["rows"]} == {"prompt", "zero_shot", "constant"}


@pytest.mark.parametrize("named", ["settings.lora.adapter.targets=[foo]", "adapter.targets=[foo]"])
def test_a_refusal_of_a_methods_own_settings_ends_the_command(small: Small, tmp_path: Path, named: str) -> None:
    out, console = tmp_path / "out", Console(file=io.StringIO(), width=160)
    recipe = small("methods=prompt,lora", "seeds=1", "tuning.latency=false", named)
    with pytest.raises(SoftpruneError) as caught:
        execute(recipe, out, "test", recipe.dump(), console=console)
    assert caught.value.expected == "lora: modules that the method can be put into"
    assert "foo" in caught.value.found
    assert caught.value.do.endswith("or leave lora out of methods")
    info = json.loads((out / "compare.json").read_text())
    assert info["status"] == "failed"
    assert {name: cell["status"] for name, cell in info["cells"].items()} == {"prompt-0": "complete"}
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines()[0] == "1 of 2: prompt, seed 0"
    assert "2 of 2" not in text  # it was refused before it began


def test_settings_may_be_mended_until_something_is_run_with_them(small: Small, tmp_path: Path) -> None:
    out, base = tmp_path / "out", ("methods=prompt,lora", "seeds=1", "tuning.latency=false")
    wrong = "settings.lora.adapter.targets=[foo]"
    with pytest.raises(SoftpruneError, match="lora: modules"):
        run(small(*base, wrong, "settings.lora.adapter.rank=2"), out)
    before = stamps(out)
    with pytest.raises(SoftpruneError, match=r"settings\.prompt\.tuning\.epochs: .absent. there, 3 now"):
        run(small(*base, "settings.prompt.tuning.epochs=3"), out)  # that one has its run
    assert run(small(*base, "settings.lora.adapter.rank=2"), out) is True
    assert before.items() <= stamps(out).items()
    assert info_of(out, "lora-0")["status"] == "complete"
    assert yaml.safe_load((out / "resolved.yaml").read_text())["settings"] == {"lora": {"adapter": {"rank": 2}}}
    with pytest.raises(SoftpruneError, match=r"settings\.lora\.adapter\.rank: 2 there, 4 now"):
        run(small(*base, "settings.lora.adapter.rank=4"), out)


def test_an_architecture_without_room_is_not_defined_whatever_the_settings(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {"prefix": "no place for it"}
    monkeypatch.setattr(runner, "why_not_defined", lambda name, described: reasons.get(name))
    out = compare_methods(
        small("methods=prefix,prompt", "seeds=1", "tuning.latency=false", "settings.prefix.adapter.hidden=8"),
        tmp_path / "out",
    )
    assert json.loads((out / "compare.json").read_text())["not_defined"] == {"prefix": "no place for it"}


def test_too_little_memory_is_no_refusal(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(out: Path) -> bool:
        raise SoftpruneError("room in memory", "out of memory", "choose a smaller model") from MemoryError()

    adapting(monkeypatch, lack)
    with pytest.raises(SoftpruneError, match="room in memory"):
        run(small("methods=lora,prompt"), tmp_path / "out")


def test_a_run_that_fails_ends_the_command_and_finished_ones_are_kept(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(out: Path) -> bool:
        out.mkdir(parents=True)
        (out / "run.json").write_text("{}")
        raise SoftpruneError("a finite loss", "nan", "lower tuning.lr")

    adapting(monkeypatch, fail)
    out, recipe = tmp_path / "out", small("methods=prompt,lora", "seeds=1")
    with pytest.raises(SoftpruneError, match="a finite loss"):
        run(recipe, out)
    info = json.loads((out / "compare.json").read_text())
    assert info["status"] == "failed"
    assert "a finite loss" in info["error"]
    assert (out / "cells" / "prompt-0" / "COMPLETE").exists()
    assert not (out / "COMPLETE").exists()
    with pytest.raises(
        SoftpruneError, match=r"a finished comparison\nfound: .* failed:\n.*expected: a finite loss"
    ) as told:
        terminal(out)
    assert "lower tuning.lr" in told.value.found
    assert told.value.do.startswith("fix that, then go on: ")


def test_a_mistake_of_all_runs_is_the_commands_and_leaves_nothing(small: Small, tmp_path: Path) -> None:
    recipe, console = small("prompt.tokens=126"), Console(file=io.StringIO())
    with pytest.raises(SoftpruneError) as caught:
        execute(recipe, tmp_path / "new" / "out", "test", recipe.dump(), console=console)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    assert str(caught.value).startswith("expected: a prompt that leaves room")
    assert not (tmp_path / "new").exists()
    with pytest.raises(SoftpruneError, match="a hub name that can be reached"):
        run(small("backbone.name=org/nowhere"), tmp_path / "new" / "out")


@pytest.mark.parametrize(("number", "kept"), [(1, False), (4, False), (40, True)])
def test_a_disk_that_gets_full(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kept: bool
) -> None:
    """What was begun goes on; what wasn't leaves nothing."""
    out, recipe, calls = tmp_path / "new" / "out", small("methods=prompt", "tuning.latency=false"), [0]

    def fsync(_: int) -> None:
        calls[0] += 1
        if calls[0] >= number:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        with pytest.raises((SoftpruneError, OSError)) as caught:
            run(recipe, out)
    assert "No space left" in str(caught.value)
    assert not list(tmp_path.rglob("*.tmp"))
    assert (tmp_path / "new").exists() == kept
    run(recipe, out)
    assert outcome(out)["rows"][0]["name"] == "prompt"


def test_tables_are_written_anew_from_compare_json_alone(compared: Path, tmp_path: Path) -> None:
    for name in ("compare.json", "resolved.yaml", "COMPLETE"):
        (tmp_path / name).write_bytes((compared / name).read_bytes())
    page = rewrite(tmp_path)
    for name in ("table.csv", "table.md", "table.tex", "index.html", "figures/frontier.svg"):
        assert (tmp_path / name).read_bytes() == (compared / name).read_bytes()
    assert page == tmp_path / "index.html"
    with pytest.raises(SoftpruneError, match=r"no compare\.json"):
        rewrite(tmp_path / "figures")
