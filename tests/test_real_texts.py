"""The real command on real articles and their summaries, in files that hold both splits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from softprune.data import load_task
from softprune.data.data_statistics import compute_statistics

pytestmark = pytest.mark.real

TASK = """
fields: [article]
template: "{{article}} TL;DR: {{mask}}"
target: highlights
sources:
  file:
    files: {{train: {file}, validation: {file}}}
    where: {{train: {{split: train}}, validation: {{split: test}}}}
"""
# Examples of train and test, the mean words of a summary, and what the first three sentences reach.
FILES = {
    "gov_posts_cc0": (569, 150, 30, 0.283),
    "wikipedia_lead_ccbysa": (1529, 1000, 61, 0.183),
}
BRIEF = {
    "--shots": "16",
    "--limit-report": "6",
    "--epochs": "2",
    "--strategy": "grid",
    "--token-ratios": "0.5",
    "--piece-ratios": "0.5",
    "--fresh-seeds": "1",
}


@pytest.fixture
def task_of(tmp_path: Path):
    def written(name: str) -> Path:
        file = Path(os.environ["SOFTPRUNE_DATA"]) / "summaries" / f"{name}.jsonl.xz"
        path = tmp_path / f"{name}.yaml"
        path.write_text(TASK.format(file=file))
        return path

    return written


@pytest.mark.parametrize("name", FILES)
def test_both_splits_of_a_packed_file(name, task_of):
    train, report, words, lead = FILES[name]
    task = load_task(task_of(name))
    splits = task.load()
    assert (len(splits.train), len(splits.validation)) == (train, report)
    assert all(example.is_generation and example.answers[0] for example in splits.train)
    found = compute_statistics(task, splits)
    assert round(found.target_words) == words
    assert found.constant == pytest.approx(lead, abs=0.001)


@pytest.mark.parametrize(
    ("name", "backbone"), [("gov_posts_cc0", "tiny-seq2seq"), ("wikipedia_lead_ccbysa", "tiny-causal")]
)
def test_the_command_on_real_articles(name, backbone, task_of, tmp_path):
    out = tmp_path / "run"
    flags = [
        "--backbone",
        backbone,
        "--task",
        str(task_of(name)),
        "--out",
        str(out),
        "task.max_length=96",
        "task.max_answer_length=24",
    ]
    command = [sys.executable, "-m", "softprune", "xprompt", *flags, *chain.from_iterable(BRIEF.items())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "complete"
    assert run["ticket"]["tokens"] == 10
    assert run["task"]["truncated"]["targets"] > 0
    losses = run["results"]["winner"]["losses"]
    assert losses["train"] < run["results"]["zero_shot"]["loss"]
    for part in ("ROUGE-1", "first 3 sentences", "winning ticket"):
        assert part in done.stdout
