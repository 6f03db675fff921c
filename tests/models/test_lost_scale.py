"""Which models lose a prompt's scale, and so are refused for SMoP: the table is held to what tiny models do."""

from __future__ import annotations

from pathlib import Path

import check_architectures as script
import pytest
import torch

from softprune.models.architectures import normalises_inputs

pytestmark = pytest.mark.slow

LOST = (
    ("causal", "bloom"),
    ("causal", "minimax"),
    ("causal", "modernbert-decoder"),
    ("causal", "nanochat"),
    ("causal", "rwkv"),
    ("masked", "deberta"),
    ("sentence", "deberta-v2"),
    ("masked", "modernbert"),
)
READ = (("causal", "llama"), ("seq2seq", "t5"), ("masked", "bert"), ("masked", "roformer"), ("sentence", "distilbert"))


@pytest.mark.parametrize(("kind", "name"), [*LOST, *READ])
def test_the_table_is_what_models_do(kind: str, name: str, tmp_path: Path) -> None:
    case = script.load(kind, name, tmp_path)
    prompt, texts = case.prompt(), case.texts()
    with torch.no_grad():
        gap = script.difference(case.losses(prompt / 4, texts), case.losses(prompt, texts))
    is_lost = (kind, name) in LOST
    assert gap < 1e-4 if is_lost else gap > 1e-3
    assert normalises_inputs(case.backbone.model.config) == is_lost
