"""`softprune tasks list | show | stats | new` as a user sees them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Softprune = Callable[..., Any]
OFFICIAL = Path(__file__).parents[1] / "fixtures" / "tasks" / "official"
COLUMNS = "text,team\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the data of two tasks."""
    for name in ("CB", "WSC"):
        shutil.copytree(OFFICIAL / name.lower(), tmp_path / "superglue" / name)
    return tmp_path


def cells(answer: Any, first: str) -> list[str]:
    """The words of the first line that begins with this word."""
    return next(line.split() for line in answer.out.splitlines() if line.split()[:1] == [first])


def test_show_tells_the_task_and_its_examples(softprune: Softprune, root: Path) -> None:
    answer = softprune("tasks", "show", "cb", "--data", str(root), "-n", "1", "--split", "validation")
    assert (answer.code, answer.err) == (0, "")
    assert cells(answer, "sizes") == ["sizes", "train", "4,", "dev", "4,", "validation", "4"]
    assert "instruction  Decide whether the hypothesis follows" in answer.out
    assert "validation 1\n" in answer.out
    assert "the ferry had left. premise: Ida wondered whether the ferry had left. [answer]" in answer.out
    assert "* neutral  (" in answer.out
    assert "* entailment" not in answer.out
    assert "nothing cut" in answer.out
    assert [line for line in answer.out.splitlines() if line != line.rstrip()] == []


def test_show_tells_what_would_be_cut(softprune: Softprune, root: Path) -> None:
    whole = softprune("tasks", "show", "cb", "--data", str(root), "-n", "1")
    tokens = int(cells(whole, "tokens")[1].rstrip(","))
    cut = softprune("tasks", "show", "cb", "--data", str(root), "-n", "1", "--max-length", str(tokens - 3))
    assert f"3 of {tokens} tokens go, {tokens - 3} stay" in cut.out
    assert "reads as  [CLS] hypothesis" in cut.out


def test_show_without_data_shows_the_sample_and_says_so(softprune: Softprune) -> None:
    answer = softprune("tasks", "show", "copa")
    assert answer.code == 0
    assert "sample written for softprune, not the real data" in answer.out
    assert "no data: the hub doesn't answer (OfflineModeIsEnabled), and nothing is in the cache\n" in answer.out
    assert "pass --data FOLDER" in answer.out
    assert "* It broke.  (" in answer.out
    assert "sizes" not in answer.out


def test_show_of_the_generated_task_and_of_what_is_not_there(softprune: Softprune, root: Path) -> None:
    assert "[answer]" in softprune("tasks", "show", "demo", "-n", "1").out
    for arguments, told in (
        (("wsc", "--data", str(root), "--split", "validation"), "there is train 4, dev 4"),
        (("wsc", "--data", str(root), "--split", "test"), "a known split"),
        (("demo", "--data", str(root)), "demo, which is generated"),
        (("boolq", "--data", str(root)), "the files of boolq"),
        (("bolq",), 'did you mean "boolq"'),
    ):
        answer = softprune("tasks", "show", *arguments)
        assert (answer.code, told in answer.err) == (2, True)


CHAT = """
title: Which team should answer
fields: [text]
template: "{text} Who should answer? {mask}"
answers: [finance, security]
gold: team
chat: {system: be brief, place: PLACE}
sources:
  file: {files: {train: rows.csv}, held_out: 0.5}
"""


@pytest.fixture
def chat_task(tmp_path: Path) -> Callable[[str], str]:
    """A conversation's task, with the prompt in one place or the other."""
    rows = [f"{text} {n},{team}" for n in range(20) for text, team in (("a bill", "finance"), ("a lock", "security"))]
    (tmp_path / "rows.csv").write_text("\n".join(["text,team", *rows]))

    def write(place: str) -> str:
        path = tmp_path / f"{place}.yaml"
        path.write_text(CHAT.replace("PLACE", place))
        return str(path)

    return write


def test_show_tells_a_conversation_and_its_seams(
    softprune: Softprune, chat_task: Callable[[str], str], tiny_models: Callable[[str], Path]
) -> None:
    model = str(tiny_models("chat"))
    shown = softprune("tasks", "show", chat_task("system"), "-n", "1", "--backbone", model).out
    assert "chat         be brief; the prompt is inside the system's turn" in shown
    assert "<start_of_turn>user\n" in shown
    assert "[prompt]be brief" in shown
    assert re.search(r"^prompt +.* \d+ '\\n' \[prompt\] \d+ ", shown, re.M)
    assert re.search(r"^answer +.* \[answer\] \d+ ", shown, re.M)
    in_front = softprune("tasks", "show", chat_task("front"), "-n", "1", "--backbone", model).out
    assert "[prompt]<|endoftext|><start_of_turn>user" in in_front
    unnamed = softprune("tasks", "show", chat_task("front"))
    assert (unnamed.code, "name one to see examples as it reads them" in unnamed.out) == (0, True)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [("tiny-causal", "a tokenizer with a chat template"), ("tiny", "a decoder-only backbone for a task with chat")],
)
def test_a_conversation_needs_a_chat_model(
    softprune: Softprune, chat_task: Callable[[str], str], tmp_path: Path, backbone: str, message: str
) -> None:
    out = str(tmp_path / "run")
    answer = softprune("tune", "--task", chat_task("front"), "--backbone", backbone, "--epochs", "1", "--out", out)
    assert (answer.code, message in answer.err, "Traceback" in answer.err) == (2, True, False)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["front", "system"])
def test_a_conversation_from_training_to_predictions(
    softprune: Softprune,
    chat_task: Callable[[str], str],
    tiny_models: Callable[[str], Path],
    tmp_path: Path,
    place: str,
) -> None:
    run, task = tmp_path / "run", chat_task(place)
    flags = ["--backbone", str(tiny_models("chat")), "--epochs", "1", "--threads", "1", "--out", str(run)]
    tuned = softprune("tune", "--task", task, *flags)
    assert tuned.code == 0, tuned.err
    out = tmp_path / "out.jsonl"
    (tmp_path / "new.jsonl").write_text('{"text": "a bill 7"}\n{"text": "a lock 8"}\n')
    predicted = softprune("predict", str(run), "--input", str(tmp_path / "new.jsonl"), "--out", str(out))
    assert predicted.code == 0, predicted.err
    assert len(out.read_text().splitlines()) == 2
    exported = softprune("export", str(run), "--format", "peft", "--out", str(tmp_path / "peft"))
    assert (exported.code, "inside the system's turn" in exported.err) == (
        (0, False) if place == "front" else (2, True)
    )
    vectors = softprune("export", str(run), "--format", "safetensors", "--out", str(tmp_path / "vectors"))
    assert ("tokens that open the system's turn" in vectors.out) == (place == "system")


def test_stats_of_a_folder(softprune: Softprune, root: Path) -> None:
    answer = softprune("tasks", "stats", "--data", str(root))
    assert cells(answer, "cb") == ["cb", "NLI", "4", "4", "4", "accuracy", "13", "50.0"]
    assert cells(answer, "wsc")[:5] == ["wsc", "coreference", "4", "4", "–"]
    assert "entailment 50%, contradiction 25%, neutral 25%\n" in answer.out
    assert "another word 50%, {span1_text} 50% (of dev)" in answer.out
    absent = answer.out.splitlines()[-1]
    assert absent.startswith("not there: ag_news, boolq, cnn_dailymail, copa")
    assert "demo" not in absent


def test_stats_without_a_folder_and_of_named_tasks(softprune: Softprune, root: Path) -> None:
    answer = softprune("tasks", "stats")
    assert cells(answer, "demo")[:4] == ["demo", "topic", "320", "–"]
    assert "(pass --data FOLDER)" in answer.out
    named = softprune("tasks", "stats", "cb", "demo", "rte", "--data", str(root))
    assert named.out.splitlines()[-1] == "not there: rte"
    assert cells(named, "demo")[-1] == "25.0"
    assert softprune("tasks", "stats", "--data", str(root / "nowhere")).code == 2


def test_stats_tell_broken_data_after_the_rest(softprune: Softprune, root: Path) -> None:
    (root / "superglue" / "CB" / "val.jsonl").write_text("{}\n")
    answer = softprune("tasks", "stats", "--data", str(root))
    assert answer.code == 2
    assert cells(answer, "wsc")[0] == "wsc"
    assert 'no "hypothesis"' in answer.err
    assert ", cb," not in answer.out


def test_new_writes_a_task_that_the_next_command_takes(
    softprune: Softprune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"a message about {team} {i},{team}\n" for i in range(10) for team in ("billing", "returns"))
    Path("mail.csv").write_text(COLUMNS + rows)
    answer = softprune("tasks", "new", "mail.csv")
    assert (answer.code, answer.err) == (0, "")
    assert "team (a guess: --label COLUMN changes it)" in answer.out
    wrote = "mail.yaml: train 16, validation 4 (held out of train)\n"
    assert f"{wrote}note      differences under 69 points can't be seen on 4 validation rows\n\n" in answer.out
    following = next(line for line in answer.out.splitlines() if line.startswith("next: softprune "))
    shown = softprune(*following.removeprefix("next: softprune ").split())
    assert shown.code == 0
    assert "team: [answer]" in shown.out
    again = softprune("tasks", "new", "mail.csv")
    assert (again.code, "mail.yaml is there already" in again.err) == (2, True)


def test_new_takes_columns_and_a_validation_file(softprune: Softprune, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("one,two,label\n" + "x y,z w,1\nx u,z v,0\n" * 4)
    out = str(tmp_path / "t.yaml")
    arguments = ("--text", "two", "--label", "label", "--validation", str(tmp_path / "b.csv"), "--out", out)
    answer = softprune("tasks", "new", str(tmp_path / "a.csv"), *arguments)
    assert "label 0, label 1 (edit them)" in answer.out
    assert f"{out}: train 8, validation 8\n" in answer.out
    assert "a guess" not in answer.out


@pytest.mark.parametrize(
    ("copies", "told"),
    [(0, ""), (1, "note      1 of 501 rows repeats another's text\n"), (5, "note      5 of 505 rows repeat another's")],
)
def test_new_counts_repeated_rows(softprune: Softprune, tmp_path: Path, copies: int, told: str) -> None:
    rows = [f"a message about {team} {i},{team}\n" for i in range(250) for team in ("billing", "returns")]
    (tmp_path / "mail.csv").write_text(COLUMNS + "".join([*rows, *rows[:copies]]))
    answer = softprune("tasks", "new", str(tmp_path / "mail.csv"))
    assert told in answer.out
    assert answer.out.count("note ") == (copies > 0)  # a hundred rows to report on are enough


def test_a_task_with_texts_to_write_from_its_file_to_its_statistics(
    softprune: Softprune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i},Row {i} is here. It is long. It ends. No {i}.,About row {i}\n" for i in range(10))
    Path("news.csv").write_text("id,article,summary\n" + rows)
    answer = softprune("tasks", "new", "news.csv", "--target", "summary")
    assert (answer.code, answer.err) == (0, "")
    assert cells(answer, "target") == ["target", "summary", "(3", "words)"]
    assert "news.yaml: train 8, validation 2 (held out of train)\n" in answer.out
    assert "note" not in answer.out
    assert "--backbone tiny-seq2seq" in answer.out
    shown = softprune("tasks", "show", "./news.yaml", "-n", "1")
    assert "target       summary (a text to write)" in shown.out
    assert re.search(r"About row \d  \(4 tokens\)", shown.out)  # its end included
    assert "targets at 128, their end included" in shown.out
    assert "marks the right answer" not in shown.out
    told = softprune("tasks", "stats", "./news.yaml")
    assert cells(told, "news")[:6] == ["news", "–", "8", "–", "2", "rougeL"]
    assert "the first 3 sentences where a text is written" in told.out
    assert "texts of 3 words" in told.out
    listed = softprune("tasks", "list")
    assert cells(listed, "cnn_dailymail")[-2:] == ["summarisation", "rougeL"]
