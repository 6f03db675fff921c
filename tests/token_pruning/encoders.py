"""Random tiny classifiers of every family whose tokens can be pruned, and texts for them.

Switches are those of the released configurations; only sizes shrink. Attention is drawn sharp: with weights as fresh
models have them, every token is as important as every other and its loss moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import transformers
from torch import nn

from models import widen
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.packing import Packed, pack
from softprune.token_pruning.rules import OFFICIAL, AliveTokens, Convention, Ranked, Rule, Thresholds

FAMILIES = ("bert", "roberta", "distilbert", "electra")
HIDDEN, HEADS, INNER, LAYERS, LONGEST, VOCABULARY, CLASSES = 32, 4, 48, 6, 96, 120, 3
OURS = Convention()
CONVENTIONS = {"ours": OURS, "official": OFFICIAL}
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}

_BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "num_labels": CLASSES,
}
_ROBERTA = {
    "max_position_embeddings": LONGEST + 2,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


@cache
def classifier(family: str, dtype: torch.dtype = torch.float32, layers: int = LAYERS) -> Any:
    """A model as transformers has it, in eval mode; its embeddings drawn wide, queries and keys wider."""
    made = {
        "bert": lambda: transformers.BertForSequenceClassification(
            transformers.BertConfig(**_BERT, num_hidden_layers=layers, max_position_embeddings=LONGEST)
        ),
        "roberta": lambda: transformers.RobertaForSequenceClassification(
            transformers.RobertaConfig(**_BERT, **_ROBERTA, num_hidden_layers=layers)
        ),
        "xlm-roberta": lambda: transformers.XLMRobertaForSequenceClassification(
            transformers.XLMRobertaConfig(**_BERT, **_ROBERTA, num_hidden_layers=layers)
        ),
        "camembert": lambda: transformers.CamembertForSequenceClassification(
            transformers.CamembertConfig(**_BERT, **_ROBERTA, num_hidden_layers=layers)
        ),
        "distilbert": lambda: transformers.DistilBertForSequenceClassification(
            transformers.DistilBertConfig(
                vocab_size=VOCABULARY,
                dim=HIDDEN,
                n_heads=HEADS,
                hidden_dim=INNER,
                n_layers=layers,
                max_position_embeddings=LONGEST,
                sinusoidal_pos_embds=False,
                num_labels=CLASSES,
            )
        ),
        "electra": lambda: transformers.ElectraForSequenceClassification(
            transformers.ElectraConfig(
                **_BERT, num_hidden_layers=layers, max_position_embeddings=LONGEST, embedding_size=HIDDEN // 2
            )
        ),
    }[family]()
    widen(made)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if any(part in name for part in ("query.weight", "key.weight", "q_lin.weight", "k_lin.weight")):
                weight.mul_(1.3)
    return made.to(dtype).eval()


def encoder_of(family: str, dtype: torch.dtype = torch.float32, layers: int = LAYERS) -> Encoder:
    return Encoder(classifier(family, dtype, layers))


def texts_of(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Token ids: one to begin with, one to end with, drawn ones between."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randint(5, VOCABULARY, (max(0, n - 2),), generator=generator).tolist() for n in lengths)
    return [[3, *ids, 4][:n] for ids, n in zip(drawn, lengths, strict=True)]


def batch_of(lengths: Sequence[int], seed: int = 0) -> Packed:
    return pack(texts_of(lengths, seed))


def unpacked(batch: Packed) -> list[list[int]]:
    """The texts of a batch."""
    return [ids.tolist() for ids in batch.ids_M.split(list(batch.lengths))]


def mixed(count: int, seed: int = 0) -> list[int]:
    """Lengths of so many texts: the longest that fits, the shortest, and drawn ones."""
    drawn = torch.randint(3, LONGEST // 2, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return ([LONGEST, 2, *drawn])[:count] if count > 2 else drawn


def thresholds(
    convention: Convention, theta_final: float = 1.0, layers: int = LAYERS, dtype: torch.dtype = torch.float32
) -> Thresholds:
    """With deltas that differ; figures are in relative units, an average token's importance is one."""
    rule = Thresholds(layers, theta_final / convention.divisor, 0.1 / convention.divisor, convention)
    with torch.no_grad():
        rule.delta_L.copy_(torch.tensor([0.0, 0.11, -0.07, 0.13, 0.05, -0.02])[:layers] / convention.divisor)
    return rule.to(dtype)


RULES = ("low", "middle", "high", "importance", "random", "first")


def rule_of(name: str, convention: Convention, layers: int = LAYERS) -> Rule:
    """By name: thresholds of three heights, and the ranked baselines. The high one leaves next to nothing."""
    if name in ("importance", "random", "first"):
        return Ranked(layers, 0.2, name, seed=3)  # type: ignore[arg-type]
    return thresholds(convention, {"low": 0.6, "middle": 1.0, "high": 5.0}[name], layers)


class Recorder:
    """Takes nobody away, and notes scores."""

    scored = True

    def __init__(self) -> None:
        self.scores: list[torch.Tensor] = []

    def prunes(self, layer: int) -> bool:
        del layer
        return True

    def keep_mask(self, alive: AliveTokens, score_M: torch.Tensor | None) -> torch.Tensor:
        assert score_M is not None
        self.scores.append(score_M)
        return torch.ones_like(alive.row_M, dtype=torch.bool)


def padded(batch: Packed, pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask `[B, N]` as a tokenizer pads them."""
    texts = batch.ids_M.split(list(batch.lengths))
    ids_BN = nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=pad)
    mask_BN = nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in texts], batch_first=True)
    return ids_BN, mask_BN


def gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The greatest difference over the greatest value."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).abs().max() / wanted.abs().max())


def trained(encoder: Encoder) -> list[torch.Tensor]:
    """All weights but a table of one type of token, whose gradient is a sum of all others."""
    return [weight for name, weight in encoder.model.named_parameters() if "token_type_embeddings" not in name]


def gradients(loss: torch.Tensor, of: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, of, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, of, strict=True)]


def assert_near(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], tolerance: float) -> None:
    """Each weight's gradient by its own largest; by a hundredth of the largest of all where it is that small."""
    largest = max(float(g.abs().max()) for g in wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert float((mine - theirs).abs().max()) <= tolerance * max(float(theirs.abs().max()), 1e-2 * largest)
