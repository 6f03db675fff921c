"""What a model says of texts with a prompt and moved tokens: one by one, unpadded, by transformers' own forward."""

from __future__ import annotations

from unittest.mock import patch

import torch
from adapted import ANSWERS, TEXTS, example, near

from softprune.models.base import Backbone
from softprune.types import Encoded

FAMILIES = ("t5", "t5_v1_1", "bart_scaled", "gpt2", "llama", "bloom", "bert", "roberta", "sentence")


def encoded(backbone: Backbone, longest: int = 64) -> list[Encoded]:
    return backbone.encode([example(text, n) for n, text in enumerate(TEXTS)], longest)


def read(backbone: Backbone, prompt_PH: torch.Tensor, text: Encoded, offset_NH: torch.Tensor) -> torch.Tensor:
    """The gold answer's log-probability `[1]`, or a sentence's embedding `[D]`; row i of the offset moves token i."""
    look_up, answer = backbone.lookup, text.answer_ids[text.gold]
    tokens = len(text.input_ids) + (len(answer) - 1 if backbone.family == "masked" else 0)

    def moved(ids: torch.Tensor) -> torch.Tensor:
        vectors = look_up(ids).clone()
        for place in range(min(tokens, len(offset_NH))):
            vectors[..., place, :] += offset_NH[place]
        return vectors

    with patch.object(backbone, "lookup", moved), torch.no_grad():
        plain = backbone.read_plainly(prompt_PH, text)
    if plain.dim() == 1:
        return plain
    log_probs = plain.log_softmax(-1)
    return sum((log_probs[at, token] for at, token in enumerate(answer)), start=torch.zeros(()))[None]


def ours(backbone: Backbone, prompts_1QH: torch.Tensor, texts: list[Encoded]) -> list[torch.Tensor]:
    """The same of our own reading, all texts in one padded batch."""
    batch = backbone.batch(texts)
    with torch.no_grad():
        found = backbone.read_softly(prompts_1QH.expand(len(texts), -1, -1), batch)
        if backbone.family != "sentence":  # also where a prompt is read once for all of them
            assert near(backbone.shared_sums(prompts_1QH, batch), found, 1e-5)
    return [row if backbone.family == "sentence" else row[[text.gold]] for row, text in zip(found, texts, strict=True)]


def off_by(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """max|a - b| / max|b| over all texts."""
    a, b = torch.cat(found).double(), torch.cat(wanted).double()
    assert a.shape == b.shape
    assert len(ANSWERS) > 1
    return float((a - b).abs().max() / b.abs().max())
