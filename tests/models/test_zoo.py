"""A sample of docs/models.md: what its rows say is what comes out, and its checks can fail.

`make test-real` runs the script whole.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import check_architectures as script
import pytest
import tiny_architectures as tiny
import torch

from softprune.models.base import Backbone
from softprune.models.shared_prompts import SharedPrompts

TINY_WARNING = pytest.mark.filterwarnings(
    "ignore::FutureWarning:transformers.modeling_utils"
)  # peft's, of transformers
SAMPLE = {
    "causal": (
        *("bloom", "deepseek_v3", "falcon alibi", "falcon_h1", "gemma2", "gemma3n_text", "gemma4_text E2B"),
        *("gpt2", "gpt_neo", "gpt_oss", "granite", "lfm2", "llama", "llama4_text", "mamba", "modernbert-decoder"),
        *("mpt", "opt", "phi", "qwen3", "qwen3_next", "recurrent_gemma", "rwkv", "smollm3", "xglm", "xlnet"),
    ),
    "wrapper": tuple(tiny.WRAPPERS),
    "seq2seq": ("bart", "longt5", "mt5", "pegasus", "switch_transformers", "t5", "t5gemma"),
    "masked": (
        *("albert", "bert", "big_bird", "deberta", "deberta-v2", "distilbert", "ernie", "eurobert", "longformer"),
        *("megatron-bert", "mobilebert", "modernbert", "mpnet", "nomic_bert", "roberta", "roformer"),
    ),
    "sentence": ("bert", "eurobert", "gemma3_text", "modernbert", "nomic_bert", "qwen3"),
}
FAST = ("tune", "prune", "generate", "prefix")
EVERY = [(kind, name) for kind, models in tiny.FAMILIES.items() for name in models]


def page_rows(page: str) -> dict[tuple[str, str], dict[str, str]]:
    """By model and family, the table's cells by column: yes, a dash, or the reason in the footnote."""
    table = page.partition(script.MARK)[2].strip().splitlines()
    notes = dict(re.findall(r"^(\d+)\. (.*)$", "\n".join(table), re.MULTILINE))
    rows = {}
    for line in table[2:]:
        if not line.startswith("|"):
            break
        name, family, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        said = [notes[cell[4:-1]] if cell.startswith("no [") else cell for cell in cells]
        rows[name, family] = dict(zip(script.COLUMNS, said, strict=True))
    return rows


ROWS = page_rows(script.PAGE.read_text(encoding="utf-8"))


def test_every_tiny_model_has_its_row() -> None:
    """A model that was added to the table of tiny models, and not to the page, is found without a run."""
    assert list(ROWS) == [(name, script.shown_family(kind)) for kind, name in EVERY]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in SAMPLE.items() for name in names])
def test_rows_say_what_comes_out(kind: str, name: str) -> None:
    found = page_rows(script.MARK + script.render([script.check(kind, name, FAST)]))
    (said,) = found.values()
    expected = ROWS[name, script.shown_family(kind)]
    assert {column: said[column] for column in FAST} == {column: expected[column] for column in FAST}


def test_the_sample_is_of_every_family_and_mostly_yes() -> None:
    assert SAMPLE.keys() == tiny.FAMILIES.keys()
    for kind, names in SAMPLE.items():
        tuned = [ROWS[name, script.shown_family(kind)]["tune"] == "yes" for name in names]
        assert sum(tuned) >= 0.9 * len(names)


# --- the checks can fail ---


@pytest.fixture(
    params=[("causal", "llama"), ("seq2seq", "t5"), ("masked", "bert"), ("sentence", "mpnet")], ids="-".join
)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> script.Case:
    return script.load(*request.param, tmp_path)


def scale_prompts(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    real = Backbone.combine

    def combine(self: Backbone, prompts: torch.Tensor, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return real(self, prompts * by, *given)

    def share(trunk: object, prompts: torch.Tensor, counts: Sequence[int]) -> SharedPrompts:
        return SharedPrompts(trunk, prompts * by, counts)

    monkeypatch.setattr(Backbone, "combine", combine)
    monkeypatch.setattr("softprune.models.causal.SharedPrompts", share)


def read_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Backbone.combine

    def combine(self: Backbone, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embeds, mask = real(self, *given)
        return embeds, torch.ones_like(mask)

    monkeypatch.setattr(Backbone, "combine", combine)


def test_a_prompt_that_is_read_otherwise_is_found(case: script.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    script.check_tuning(case)
    script.check_pruning(case)
    scale_prompts(monkeypatch, 1.001)
    with pytest.raises(script.Fails, match=r"(the loss of a batch|the gradient) differs by"):
        script.check_tuning(case)
    with pytest.raises(script.Fails, match="importance differs by"):
        script.check_pruning(case)


def test_a_prompt_that_is_not_read_is_found(case: script.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    scale_prompts(monkeypatch, 0.0)
    with pytest.raises(script.Fails):
        script.check_tuning(case)
    with pytest.raises(script.Fails, match="a pruned piece changes nothing"):
        script.check_pruning(case)


def test_padding_that_is_read_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = script.load("masked", "bert", tmp_path)
    case.backbone.fused = None
    read_padding(monkeypatch)
    with pytest.raises(script.Fails, match="the loss of a batch differs by"):
        script.check_tuning(case)


def test_other_texts_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = script.load("causal", "llama", tmp_path)
    script.check_generation(case)
    monkeypatch.setattr(case.backbone, "generate", lambda *_: ["badu", "bako"])
    with pytest.raises(script.Fails, match="writes 'badu', not"):
        script.check_generation(case)


@pytest.mark.slow
@TINY_WARNING
@pytest.mark.parametrize(("kind", "name"), [("causal", "qwen3"), ("seq2seq", "t5gemma"), ("wrapper", "gemma3")])
def test_exports_and_their_control(kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = script.load(kind, name, tmp_path / "model")
    script.check_export(case)
    real = script.adapter_files
    monkeypatch.setattr(script, "adapter_files", lambda prompt, *rest: real(prompt * 1.1, *rest))
    again = script.load(kind, name, tmp_path / "again")
    with pytest.raises(script.Fails, match="peft's loss differs by"):
        script.check_export(again)


# --- the page ---


def test_reasons_are_footnotes_that_are_shared() -> None:
    reasons = {"tune": None, "prune": '"llama" does not', "generate": "", "export": "this model does not"}
    table = script.render([script.Row("llama", "causal", {**dict.fromkeys(script.COLUMNS, ""), **reasons})])
    assert "| llama | causal | yes | no [1] | – | no [1] | – | – |" in table
    assert table.endswith("\n1. this model does not\n")


@pytest.mark.real
def test_the_page_is_what_the_script_makes() -> None:
    done = subprocess.run([sys.executable, script.__file__], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
