"""Random tiny models of many architectures score as their plain forward of the same token ids does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zoo

from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.batching import collate
from softprune.types import Encoded

pytestmark = pytest.mark.slow

TOLERANCE = 3e-6
PROMPT = (21, 34, 27)
TEXTS = ((41, 33, 29, 52, 47, 38, 44), (36, 55, 31))
ANSWERS = ((61,), (63, 66))
EVERY = [(family, name) for family, models in zoo.FAMILIES.items() for name in models]


@pytest.mark.parametrize(("family", "name"), EVERY, ids=[f"{family}-{name}" for family, name in EVERY])
def test_scores_are_those_of_the_plain_forward(family: str, name: str, tmp_path: Path) -> None:
    backbone = load_backbone(str(zoo.build(tmp_path, family, name)), family=family, dtype="float32", device="cpu")
    prompt_PH = backbone.embeddings_VH()[list(PROMPT)]
    texts = [lead(backbone, text) for text in TEXTS]
    plain = torch.stack([PLAIN[family](backbone, text) for text in texts])

    padded = read(backbone, prompt_PH, texts)
    assert difference(padded, plain) <= TOLERANCE
    alone = torch.cat([read(backbone, prompt_PH, [text]) for text in texts])
    assert difference(alone, plain) <= TOLERANCE
    # Negative control: two tokens of the prompt change places, and another vanishes.
    wrong_PH = prompt_PH[[1, 0, 2]] * torch.tensor([[1.0], [1.0], [0.0]])
    assert difference(read(backbone, wrong_PH, texts), plain) > 30 * TOLERANCE


def lead(backbone: Backbone, text: tuple[int, ...]) -> tuple[int, ...]:
    """A text behind the token that stays in front of a prompt, with a slot in it for masked models."""
    if backbone.family == "masked":
        text = (*text[:2], int(backbone.tokenizer.mask_token_id), *text[2:])
    return (backbone.tokenizer.cls_token_id, *text) if backbone.leading else text


@torch.no_grad()
def read(backbone: Backbone, prompt_PH: torch.Tensor, texts: list[tuple[int, ...]]) -> torch.Tensor:
    """Softprune's scores (a sentence model's embeddings), `[B, A]`."""
    slot = 2 + backbone.leading if backbone.family == "masked" else -1
    batch = collate([Encoded(text, slot, ANSWERS, 0) for text in texts], pad_id=9, device=backbone.device)
    return backbone.read_softly(prompt_PH.expand(len(texts), -1, -1), batch)


def sum_at(logits_TV: torch.Tensor, answer: tuple[int, ...]) -> torch.Tensor:
    return logits_TV.double().log_softmax(-1)[torch.arange(len(answer)), list(answer)].sum()


@torch.no_grad()
def plain_causal(backbone: Backbone, text: tuple[int, ...]) -> torch.Tensor:
    start = len(PROMPT) + len(text)
    found = []
    for answer in ANSWERS:
        ids = torch.tensor([[*PROMPT, *text, *answer]])
        found.append(sum_at(backbone.model(input_ids=ids, use_cache=False).logits[0, start - 1 : -1], answer))
    return torch.stack(found)


@torch.no_grad()
def plain_seq2seq(backbone: Backbone, text: tuple[int, ...]) -> torch.Tensor:
    ids, start = torch.tensor([[*PROMPT, *text]]), backbone.model.config.decoder_start_token_id
    return torch.stack(
        [
            sum_at(backbone.model(input_ids=ids, decoder_input_ids=torch.tensor([[start, *a[:-1]]])).logits[0], a)
            for a in ANSWERS
        ]
    )


@torch.no_grad()
def plain_masked(backbone: Backbone, text: tuple[int, ...]) -> torch.Tensor:
    mask = int(backbone.tokenizer.mask_token_id)
    slot = text.index(mask)
    found = []
    for answer in ANSWERS:
        ids = [text[0], *PROMPT, *text[1:slot], *[mask] * len(answer), *text[slot + 1 :]]
        first = slot + len(PROMPT)
        logits = backbone.model(input_ids=torch.tensor([ids])).logits[0, first : first + len(answer)]
        found.append(sum_at(logits, answer))
    return torch.stack(found)


@torch.no_grad()
def plain_sentence(backbone: Backbone, text: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([[text[0], *PROMPT, *text[1:]]])
    mean: torch.Tensor = backbone.model(input_ids=ids).last_hidden_state[0].mean(0)
    return mean


PLAIN: dict[str, Callable[[Backbone, tuple[int, ...]], torch.Tensor]] = {
    "causal": plain_causal,
    "seq2seq": plain_seq2seq,
    "masked": plain_masked,
    "sentence": plain_sentence,
}


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())
