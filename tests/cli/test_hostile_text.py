"""Titles, labels, texts and names that a terminal would obey, or Rich would read as markup, are shown as they are."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import softprune as package
from softprune.training.loop import Point
from softprune.training.progress import Display

Softprune = Callable[..., Any]
Models = Callable[[str], Path]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

MARKUP = "[/red] :smile: `|` $\\x$ <b>"
CONTROLS = "\x1b[31m \x07 \u202e \x9b2J \u2028 \x7f"
SHOWN = r"\x1b[31m \x07 \u202e \x9b2J \u2028 \x7f"
FOLDER = "m\x1b[2J\u202eood"
THINGS = ("film", "meal", "river", "room", "cast", "window", "cheese", "wind")
GOOD, BAD = f"good {CONTROLS}", f"bad {MARKUP}"
TASK: dict[str, Any] = {
    "id": "mood",
    "version": 1,
    "title": f"Mood {MARKUP} {CONTROLS}",
    "instruction": f"Tell {MARKUP} {CONTROLS}",
    "fields": {"text": {"shortenable": True}},
    "template": "{text} . it was {mask}",
    "answers": [GOOD, BAD],
    "metric": "accuracy",
    "sources": {
        "file": {
            "format": "jsonl",
            "files": {"train": "train.jsonl", "validation": "train.jsonl"},
            "labels": {"good": GOOD, "bad": BAD},
        }
    },
}
QUICK = "--epochs 1 backbone.dtype=float32 backbone.device=cpu selection.resamples=20"
TOKENS = f"tokens train --task {{task}} --backbone {{encoder}} --lambdas 0.1 --baselines top-k --max-length 48 {QUICK}"
TUNE = f"tune --task {{task}} --backbone {{home}}/gpt2 --tokens 2 {QUICK} selection.seeds=0"


def obeyed(text: str) -> set[str]:
    """What of a text a terminal or a browser would obey."""
    return {char for char in text if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")}


@pytest.fixture
def call(softprune: Softprune, tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch) -> Softprune:
    """Runs a command next to a folder of data that is hostile throughout, and looks at all that it says."""
    home = tmp_path / FOLDER
    home.mkdir()
    shutil.copytree(tiny_models("gpt2"), home / "gpt2")
    (home / "mood.yaml").write_text(json.dumps(TASK), encoding="utf-8")
    rows = [{"text": f"the {thing} {CONTROLS} {MARKUP}", "label": mood} for thing in THINGS for mood in ("good", "bad")]
    (home / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    task = shlex.quote(f"{FOLDER}/mood.yaml")

    def run(command: str, code: int = 0) -> str:
        words = command.format(task=task, home=shlex.quote(FOLDER), encoder=tiny_models("encoder"))
        answer = softprune(*shlex.split(words))
        said: str = answer.out + answer.err
        assert answer.code == code, said
        assert obeyed(said) == set()
        return said

    return run


def test_token_pruning_tells_and_writes_nothing_that_is_obeyed(call: Softprune) -> None:
    said = call(TOKENS + " --out {home}/run")
    assert TASK["title"].replace(CONTROLS, SHOWN)[:20] in said
    assert r"m\x1b[2J\u202eood" in said
    assert r"m\x1b[2J\u202eood/run" in call("runs .")
    call("tokens analyse {home}/run --out out")
    rows = call("tokens predict {home}/run --input {home}/train.jsonl")
    assert len([json.loads(row) for row in rows.splitlines()]) == 2 * len(THINGS)
    assert json.loads(rows.splitlines()[0])["text"] == f"the film {CONTROLS} {MARKUP}"
    text = shlex.quote(CONTROLS + MARKUP).replace("{", "{{")
    assert SHOWN in call(f"tokens explain {{home}}/run {text} --html explained.html")
    for page in ("out/analysis.html", "explained.html"):
        assert obeyed(Path(page).read_text(encoding="utf-8")) == set()
    assert SHOWN in Path("out/analysis.html").read_text(encoding="utf-8")


def test_a_prompt_tells_and_writes_nothing_that_is_obeyed(call: Softprune) -> None:
    said = call(TUNE + " --out {home}/run")
    assert SHOWN in said
    assert MARKUP in said
    call("neighbours {home}/run --k 1")
    call("export {home}/run --format peft --out {home}/peft")
    page = (Path(FOLDER) / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert obeyed(re.sub("<script>.*?</script>", "", page, flags=re.DOTALL)) == set()  # but for plotly's own
    assert SHOWN in page
    card = (Path(FOLDER) / "peft" / "README.md").read_text(encoding="utf-8")
    assert r"# Soft prompt for Mood \[/red\] :smile: \`\|\` \$\\x\$ \<b>" in card
    assert "`` bad [/red] :smile: `\\|` $\\x$ <b> ``" in card
    assert obeyed(card) == set()


def test_what_looks_at_data_tells_nothing_that_is_obeyed(call: Softprune) -> None:
    for command in ("tasks show {task} --backbone {home}/gpt2", "tasks stats {task}"):
        said = call(command)
        assert SHOWN in said
        assert MARKUP in said
    assert r"m\x1b[2J\u202eood" in call(TUNE.replace("tune", "plan", 1))
    json.loads(call(TUNE.replace("tune", "plan", 1) + " --json"))


@pytest.mark.parametrize(
    "command",
    [
        "report {home}/nothing",
        "runs {home}/nothing",
        "tasks show {home}/no.yaml",
        "xprompt --task {task} --backbone {home}/none",
        "tokens predict {home}/none --input {home}/train.jsonl",
        "xprompt --task {task} --backbone {home}/gpt2 --tokens {home}",
        "{home}",
        "xprompt --{home}",
    ],
)
def test_messages_hold_nothing_that_is_obeyed(call: Softprune, command: str) -> None:
    assert r"\x1b" in call(command, code=2)


def test_the_look_at_what_was_said_can_fail() -> None:
    """Negative control."""
    assert obeyed(CONTROLS) == set(CONTROLS) - set(" [31m2J")
    assert obeyed(SHOWN) == set()


WAYS_OUT = ("printable.py", "terminal.py", "cli/output.py", "cli/__init__.py")
PRINTERS = ("print", "typer.echo", "click.echo", "rich.print", "Console", "Panel", "Text.from_markup")


def ways_out(source: str) -> list[str]:
    """Calls and imports that bring text to a terminal by another way than through `WAYS_OUT`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "rich.table":
            found.append("rich.table")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTERS:
            found.append(ast.unparse(node.func))
    return found


def test_everything_goes_out_the_same_way() -> None:
    root = Path(package.__file__).parent
    files = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    others = {name: found for name, text in files.items() if name not in WAYS_OUT and (found := ways_out(text))}
    assert others == {"report/__init__.py": ["rich.table"]}  # a type alone
    assert ways_out("print(1)\nfrom rich.table import Table") == ["rich.table", "print"], "negative control"


def test_a_live_line_shows_its_title_as_it_is() -> None:
    said = io.StringIO()
    for terminal in (False, True):
        display = Display(Console(file=said, force_terminal=terminal, color_system=None, width=200))
        display.begin(MARKUP + "\x1b]0;title\x07\u202e", steps=2, done=0)
        display.evaluated([Point("a", 1, 1, 0.5, 0.5, 0.5, 1.0)])
        display.end()
    assert said.getvalue().count(MARKUP) >= 2  # a live line is drawn again and again
    assert not set("\x07\u202e") & set(said.getvalue())
    assert "\x1b]0" not in said.getvalue()
