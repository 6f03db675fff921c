"""Deep prompts of BERT and RoBERTa, held against attention written out by hand, and against peft where it has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from peft import PrefixTuningConfig, get_peft_model
from pefts import ANSWERS, TEXTS, P, batch_of, difference, no_prompt, scored

from softprune.adapters.base import AdapterPlan
from softprune.adapters.prefix import new_prefix
from softprune.models.architectures import masked_head
from softprune.models.base import Backbone

Backbones = Callable[..., Backbone]
TOLERANCE = 1e-10


def attend(layer: Any, x_LH: torch.Tensor, keys_hPD: torch.Tensor, values_hPD: torch.Tensor) -> torch.Tensor:
    """One sublayer: each head's queries against its keys of the prefix and of the text."""
    inside, behind = layer.attention.self, layer.attention.output
    heads, size = keys_hPD.shape[0], keys_hPD.shape[2]
    query, key, value = (part(x_LH) for part in (inside.query, inside.key, inside.value))
    read = []
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        keys = torch.cat([keys_hPD[head], key[:, at]])
        values = torch.cat([values_hPD[head], value[:, at]])
        read.append(F.softmax(query[:, at] @ keys.T / math.sqrt(size), -1) @ values)
    return behind.LayerNorm(behind.dense(torch.cat(read, -1)) + x_LH)


def hidden_states(encoder: Any, ids: list[int], numbers_PI: torch.Tensor, first: int) -> torch.Tensor:
    """Of one text `[L, H]`, without padding, its first token at position `first`."""
    embeddings, heads = encoder.embeddings, encoder.config.num_attention_heads
    places = torch.arange(first, first + len(ids))
    x_LH = embeddings.word_embeddings(torch.tensor(ids)) + embeddings.position_embeddings(places)
    x_LH = embeddings.LayerNorm(x_LH + embeddings.token_type_embeddings.weight[0])
    width = x_LH.shape[1]
    for number, layer in enumerate(encoder.encoder.layer):
        start = 2 * number * width
        keys, values = (
            numbers_PI[:, at : at + width].unflatten(1, (heads, -1)).transpose(0, 1) for at in (start, start + width)
        )
        x_LH = attend(layer, x_LH, keys, values)
        inner = F.gelu(layer.intermediate.dense(x_LH))
        x_LH = layer.output.LayerNorm(layer.output.dense(inner) + x_LH)
    return x_LH


def masked_by_hand(backbone: Backbone, numbers_PI: torch.Tensor, first: int) -> torch.Tensor:
    """Log-likelihoods `[B, A]`, a text and an answer at a time."""
    tokenizer, model = backbone.tokenizer, backbone.model
    space = " " if model.config.model_type == "roberta" else ""
    rows = []
    for text in TEXTS:
        for answer in ANSWERS:
            targets = tokenizer(space + answer, add_special_tokens=False)["input_ids"]
            ids = tokenizer(f"{text} {tokenizer.mask_token * len(targets)}")["input_ids"]
            at = [place for place, token in enumerate(ids) if token == tokenizer.mask_token_id]
            logits = masked_head(model, hidden_states(model.base_model, ids, numbers_PI, first)[at])
            rows.append(logits.log_softmax(-1)[torch.arange(len(at)), targets].sum())
    return torch.stack(rows).view(len(TEXTS), len(ANSWERS))


def sentence_by_hand(backbone: Backbone, numbers_PI: torch.Tensor, first: int) -> torch.Tensor:
    """Log-softmax of cosines / 0.05 `[B, A]` under mean pooling; answers are read without a prefix, from place 0."""
    read = backbone.tokenizer
    texts = [hidden_states(backbone.model, read(text)["input_ids"], numbers_PI, first).mean(0) for text in TEXTS]
    answers = [hidden_states(backbone.model, read(a)["input_ids"], numbers_PI[:0], 0).mean(0) for a in ANSWERS]
    cosines = torch.stack([torch.stack([F.cosine_similarity(t, a, dim=0) for a in answers]) for t in texts])
    return (cosines / 0.05).log_softmax(-1)


BY_HAND = {"bert": masked_by_hand, "roberta": masked_by_hand, "sentence_bare": sentence_by_hand}
# RoBERTa counts its positions from behind the padding index, 1.
FIRST = {"bert": P, "roberta": P + 2, "sentence_bare": P}


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("name", list(BY_HAND))
def test_keys_and_values_written_out(name: str, project: bool, backbone_of: Backbones) -> None:
    backbone = backbone_of(name, "float64")
    batch, by_hand, first = batch_of(backbone), BY_HAND[name], FIRST[name]
    without = scored(backbone, batch)
    prefix = new_prefix(backbone, AdapterPlan("prefix" if project else "p-tuning-v2", tokens=P), seed=0)
    weights = torch.randn(len(TEXTS), len(ANSWERS), generator=torch.Generator().manual_seed(1)).double()
    parameters = list(prefix.module.parameters())

    ours = scored(backbone, batch)
    expected = by_hand(backbone, prefix.keys_values(), first)
    assert difference(ours, expected) <= TOLERANCE
    gradients = torch.autograd.grad((ours * weights).sum(), parameters)
    for found, true in zip(gradients, torch.autograd.grad((expected * weights).sum(), parameters), strict=True):
        assert difference(found, true) <= TOLERANCE
        assert difference(found * 1.001, true) > 100 * TOLERANCE

    numbers = prefix.keys_values().detach()
    wrong = {
        "no prefix": without,
        "zeros": by_hand(backbone, torch.zeros_like(numbers), first),
        "keys for values": by_hand(backbone, numbers.unflatten(1, (-1, 2, 32)).flip(2).flatten(1), first),
        "a position earlier": by_hand(backbone, numbers, first - 1),
    }
    prefix.detach()
    assert {told for told, other in wrong.items() if difference(other, expected) <= 100 * TOLERANCE} == set()


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils")
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_hidden_states_are_pefts(name: str, backbone_of: Backbones, tiny_models: Callable[[str], Path]) -> None:
    """peft wraps the bare encoder; heads are no part of a prefix."""
    backbone = backbone_of(name)
    prefix = new_prefix(backbone, AdapterPlan("p-tuning-v2", tokens=P), seed=0)
    encoder = transformers.AutoModel.from_pretrained(tiny_models(name), dtype=torch.float32).eval()
    config = PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=P)
    model: Any = get_peft_model(encoder, config).eval()
    model.prompt_encoder["default"].load_state_dict(prefix.module.state_dict())
    batch = batch_of(backbone)
    with torch.no_grad():
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.input_mask).last_hidden_state
        nothing = no_prompt(backbone).expand(len(batch), -1, -1)
        embeds, mask = backbone.combine(nothing, batch.input_ids, batch.input_mask)
        ours = backbone.trunk(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        prefix.detach()
        without = backbone.trunk(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    real = batch.input_mask.bool()
    assert difference(ours[real], theirs[real]) <= 1e-5
    assert difference(without[real], theirs[real]) > 1e-3
