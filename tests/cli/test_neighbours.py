"""`softprune neighbours`: of runs that wrote them, of older ones, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mood import write_mood
from softprune.cli.app import app
from softprune.errors import SoftpruneError
from softprune.interpret.run_neighbours import neighbours_of
from softprune.pipelines.xprompt import xprompt

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = write_mood(tmp_path_factory.mktemp("mood"), ("cast", "scene", "window", "children", "cheese"))
    recipe: dict[str, Any] = {
        "backbone": {"name": str(tiny_models("sentence")), "dtype": "float32", "device": "cpu"},
        "task": {"id": str(task)},
        "prompt": {"tokens": 4, "pieces": 4},
        "tuning": {"epochs": 2, "lr": 0.3},
        "search": {"strategy": "grid", "epochs": 1, "token_ratios": [0.5], "piece_ratios": [0.5]},
        "selection": {"seeds": 0, "resamples": 100},
    }
    return xprompt(recipe, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def older(finished: Path, tmp_path: Path) -> Path:
    """The run as one from before there were neighbours."""
    folder = tmp_path / "older"
    shutil.copytree(finished, folder)
    (folder / "neighbours.json").unlink()
    return folder


def said(*words: str) -> str:
    done = CliRunner().invoke(app, ["neighbours", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_writes_what_is_found_without_its_file_too(finished: Path, older: Path) -> None:
    written = json.loads((finished / "neighbours.json").read_text())
    assert neighbours_of(finished) == written
    before = sorted(older.rglob("*"))
    assert neighbours_of(older) == written
    assert sorted(older.rglob("*")) == before  # a complete run stays as it is
    assert list(written["prompts"]) == ["tuned", "winner"]
    ticket = json.loads((finished / "ticket" / "ticket.json").read_text())
    assert [token["token"] for token in written["prompts"]["winner"]] == ticket["kept_tokens"]
    words = json.loads((finished / "run.json").read_text())["prompt"]["words"]
    tokens = written["prompts"]["tuned"]
    assert [token["word"] for token in tokens] == [word.removeprefix("##") for word in words]
    assert [token["start"]["euclidean"][0]["value"] for token in tokens] == [0.0] * 4
    assert all(token["moved"] > 0 for token in tokens)


def test_more_neighbours_than_were_written_are_found(finished: Path) -> None:
    few, many = neighbours_of(finished), neighbours_of(finished, 12)
    assert (few["k"], many["k"]) == (8, 12)
    near = [found["prompts"]["tuned"][0]["end"]["centred"] for found in (few, many)]
    assert (len(near[0]), len(near[1])) == (8, 12)
    assert near[1][:8] == near[0]


@pytest.mark.parametrize("measure", ["centred", "cosine", "euclidean"])
def test_the_table_shows_each_token(finished: Path, measure: str) -> None:
    written = json.loads((finished / "neighbours.json").read_text())
    output = said(str(finished), "--k", "2", "--measure", measure)
    for name, tokens in written["prompts"].items():
        assert f"{name}: {sum(t['kept'][measure] is True for t in tokens)} of {len(tokens)} tokens" in output
        for token in tokens:
            first, second, third = token["end"][measure][:3]
            near = f"{first['word']} {first['value']:.2f}, {second['word']} {second['value']:.2f}"
            (line,) = [row for row in output.splitlines() if near in row and f"{token['moved']:.2f}" in row]
            assert line.split()[0] == str(token["token"])
            assert line.endswith("yes" if token["kept"][measure] else "no")
            assert f"{third['word']} {third['value']:.2f}" not in line
    assert f"({measure})" in output


def test_hostile_words_are_shown_and_not_obeyed(older: Path, finished: Path) -> None:
    document = json.loads((finished / "neighbours.json").read_text())
    document["prompts"]["tuned"][0]["word"] = "\x1b[2Jgone"
    document["prompts"]["tuned"][0]["end"]["centred"][0]["word"] = "\u202eback"
    (older / "neighbours.json").write_text(json.dumps(document))
    output = said(str(older))
    assert "<U+001B>[2Jgone" in output
    assert "<U+202E>back" in output
    assert not {"\x1b", "\u202e"} & {*output}


def test_mistakes_are_told(finished: Path, older: Path, tmp_path: Path) -> None:
    def refused(match: str, *words: str) -> None:
        with pytest.raises(SoftpruneError, match=match):
            CliRunner().invoke(app, ["neighbours", *words], catch_exceptions=False)

    refused('did you mean "cosine"', str(finished), "--measure", "cosin")
    refused("no run.json", str(tmp_path / "nowhere"))
    info = json.loads((older / "run.json").read_text())
    (older / "run.json").write_text(json.dumps({**info, "kind": "tokens"}))
    refused("tuned a prompt", str(older))
    (older / "run.json").write_text(json.dumps(info))
    (older / "prompts" / "initial.safetensors").unlink()
    refused("no file", str(older))
    shutil.rmtree(older / "ticket")
    refused("stopped before", str(older))
