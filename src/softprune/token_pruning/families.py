"""Where the encoders that softprune prunes keep their parts: one table, an entry for each family.

An encoder block is `h = LN(x + W_o attention(x))`, `y = LN(h + W_2 act(W_1 h))` in all of them (post-norm, Vaswani et
al. 2017). The weights and modules stay transformers' own; attention and the loop over the layers are ours (`forward`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from softprune.errors import SoftpruneError


@dataclass(frozen=True, slots=True)
class Layer:
    """The modules of one encoder block: of its attention, then of its feed-forward part."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.Module
    first: nn.Linear
    activation: Callable[[torch.Tensor], torch.Tensor]
    last: nn.Linear
    norm: nn.Module


@dataclass(frozen=True, slots=True)
class Family:
    """Where a model type keeps its parts.

    Attributes:
        encoder: name in the classification model.
        layers: name in the encoder.
        parts: names in a layer, by field of `Layer`.
        hidden_dropout, attention_dropout: names in the configuration.
        head: from the model and the first token's state `[B, 1, H]` to logits `[B, C]`.
        offset: the first token's position; RoBERTa counts from its padding id + 1.
    """

    encoder: str
    layers: str
    parts: Mapping[str, str]
    hidden_dropout: str
    attention_dropout: str
    head: Callable[[Any, torch.Tensor], torch.Tensor]
    offset: Callable[[Any], int] = lambda config: 0


def _bert_head(model: Any, state_B1H: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.classifier(model.dropout(model.bert.pooler(state_B1H)))
    return logits


def _own_head(model: Any, state_B1H: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.classifier(state_B1H)
    return logits


def _distilbert_head(model: Any, state_B1H: torch.Tensor) -> torch.Tensor:
    pooled = F.relu(model.pre_classifier(state_B1H[:, 0]))
    logits: torch.Tensor = model.classifier(model.dropout(pooled))
    return logits


def _behind_padding(config: Any) -> int:
    pad = getattr(config, "pad_token_id", None)
    return 0 if pad is None else int(pad) + 1


def _bert_like(
    encoder: str, head: Callable[[Any, torch.Tensor], torch.Tensor], offset: Callable[[Any], int] = lambda config: 0
) -> Family:
    parts = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "first": "intermediate.dense",
        "activation": "intermediate.intermediate_act_fn",
        "last": "output.dense",
        "norm": "output.LayerNorm",
    }
    return Family(encoder, "encoder.layer", parts, "hidden_dropout_prob", "attention_probs_dropout_prob", head, offset)


_ROBERTA = _bert_like("roberta", _own_head, _behind_padding)
FAMILIES: dict[str, Family] = {
    "bert": _bert_like("bert", _bert_head),
    "electra": _bert_like("electra", _own_head),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Family(
        encoder="distilbert",
        layers="transformer.layer",
        parts={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "output": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "first": "ffn.lin1",
            "activation": "ffn.activation",
            "last": "ffn.lin2",
            "norm": "output_layer_norm",
        },
        hidden_dropout="dropout",
        attention_dropout="attention_dropout",
        head=_distilbert_head,
    ),
}
"""By transformers' model type; MiniLM and many sentence encoders are of type bert."""


class Encoder:
    """A sequence classifier taken apart; the modules are the model's own.

    Args:
        model: a transformers model for sequence classification.

    Raises:
        SoftpruneError: it isn't of a family in the table.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        check_type(config)
        self.model, self.config = model, config
        self.family = FAMILIES[config.model_type]
        self.encoder = _submodule(model, self.family.encoder)
        self.layers = [
            Layer(**{name: _submodule(layer, path) for name, path in self.family.parts.items()})
            for layer in _submodule(self.encoder, self.family.layers)
        ]
        self.heads, self.hidden = int(config.num_attention_heads), int(config.hidden_size)
        self.hidden_dropout = float(getattr(config, self.family.hidden_dropout))
        self.attention_dropout = float(getattr(config, self.family.attention_dropout))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.layers[0].query.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.layers[0].query.weight.dtype

    @property
    def inner(self) -> int:
        """Width of the feed-forward part."""
        return int(self.layers[0].first.out_features)

    @property
    def training(self) -> bool:
        """Whether dropout is on."""
        return bool(self.model.training)

    def embed(self, ids_M: torch.Tensor, positions_M: torch.Tensor) -> torch.Tensor:
        """Embedded tokens `[M, H]`, each at its position in its own text (from 0)."""
        at_1M = (positions_M + self.family.offset(self.config))[None]
        embedded: torch.Tensor = self.encoder.embeddings(input_ids=ids_M[None], position_ids=at_1M)
        project = getattr(self.encoder, "embeddings_project", None)  # ELECTRA's smaller embeddings
        return (embedded if project is None else project(embedded))[0]

    def classify(self, first_BH: torch.Tensor) -> torch.Tensor:
        """Logits `[B, C]` from the last state of each text's first token."""
        return self.family.head(self.model, first_BH[:, None])


def check_type(config: Any) -> None:
    """Check a configuration against the table.

    Raises:
        SoftpruneError: for another architecture, a decoder, or relative positions.
    """
    kind = found = str(config.model_type)
    if kind not in FAMILIES or getattr(config, "is_decoder", False):
        if kind in FAMILIES:
            found += " as a decoder"
        raise SoftpruneError(
            f"an encoder whose tokens can be pruned: {', '.join(sorted(FAMILIES))}",
            found,
            "choose an encoder of these types; prompts of other models are pruned by softprune xprompt",
        )
    relative = getattr(config, "position_embedding_type", "absolute")
    if relative != "absolute":
        raise SoftpruneError(
            "absolute positions, which a token keeps when others leave",
            f"position_embedding_type: {relative}",
            "choose a model with absolute positions",
        )


def most_positions(config: Any) -> int:
    """Tokens of the longest text that a model of the table reads, special ones included."""
    return int(config.max_position_embeddings) - FAMILIES[config.model_type].offset(config)


def _submodule(module: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        module = getattr(module, name)
    return module
