"""Where the encoders that softprune prunes keep their parts: one table.

An encoder block is `h = LN(x + W_o attention(x))`, `y = LN(h + W_2 act(W_1 h))` in all of them (post-norm, Vaswani et
al. 2017). The weights and modules stay transformers' own; attention and the loop over the layers are ours (`forward`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from softprune.errors import SoftpruneError
from softprune.token_pruning.cpu_kernels import Activation, linear


@dataclass(frozen=True, slots=True)
class Layer:
    """The modules of one encoder block: of its attention, then of its feed-forward part."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.Module
    first: nn.Linear
    activation: Activation
    last: nn.Linear
    norm: nn.Module


@dataclass(frozen=True, slots=True)
class Family:
    """Where a model type keeps its parts."""

    encoder: str  # name in the classification model
    layers: str  # name in the encoder
    parts: Mapping[str, str]  # names in a layer, by field of `Layer`
    hidden_dropout: str  # name in the configuration
    attention_dropout: str  # name in the configuration
    # From the first token's state [B, 1, H] to logits [B, C]; transformers' heads take token 0 of such a sequence.
    head: Callable[[Any, torch.Tensor], Any]
    after_padding: bool = False  # whether positions count from the padding id + 1, as RoBERTa's do; else from 0


def _bert_head(model: Any, state_B1H: torch.Tensor) -> Any:
    return model.classifier(model.dropout(model.bert.pooler(state_B1H)))


def _own_head(model: Any, state_B1H: torch.Tensor) -> Any:
    return model.classifier(state_B1H)


def _distilbert_head(model: Any, state_B1H: torch.Tensor) -> Any:
    return model.classifier(model.dropout(F.relu(model.pre_classifier(state_B1H[:, 0]))))


_BERT = Family(
    encoder="bert",
    layers="encoder.layer",
    parts={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "first": "intermediate.dense",
        "activation": "intermediate.intermediate_act_fn",
        "last": "output.dense",
        "norm": "output.LayerNorm",
    },
    hidden_dropout="hidden_dropout_prob",
    attention_dropout="attention_probs_dropout_prob",
    head=_bert_head,
)
_ROBERTA = replace(_BERT, encoder="roberta", head=_own_head, after_padding=True)
FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "electra": replace(_BERT, encoder="electra", head=_own_head),
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
    """A transformers model for sequence classification, taken apart; the modules are the model's own."""

    def __init__(self, model: Any) -> None:
        config = model.config
        check_type(config)
        self.model, self.config = model, config
        self.family = FAMILIES[config.model_type]
        self.encoder = getattr(model, self.family.encoder)
        self.layers: list[Layer] = []
        for block in attrgetter(self.family.layers)(self.encoder):
            self.layers.append(Layer(**{name: attrgetter(path)(block) for name, path in self.family.parts.items()}))
        self.heads, self.hidden = int(config.num_attention_heads), int(config.hidden_size)
        self.inner = int(self.layers[0].first.out_features)  # width of the feed-forward part
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

    def set_dropout(self, hidden: float | None, attention: float) -> None:
        """Set the dropout of hidden states (None keeps the model's own) and of attention probabilities."""
        self.attention_dropout = attention
        if hidden is None:
            return
        self.hidden_dropout = hidden
        for module in self.model.modules():  # embeddings and head, which run as modules, have their own
            if isinstance(module, nn.Dropout):
                module.p = hidden

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take what training left, whose tensors have the candidates' axis first; thresholds there are ignored."""
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(weights[name][0])

    def embed(self, ids_M: torch.Tensor, positions_M: torch.Tensor) -> torch.Tensor:
        """Embedded tokens `[M, H]`, each at its position in its own text (from 0)."""
        at_1M = (positions_M + first_position(self.config))[None]
        embedded: torch.Tensor = self.encoder.embeddings(input_ids=ids_M[None], position_ids=at_1M)
        if hasattr(self.encoder, "embeddings_project"):  # ELECTRA's smaller embeddings
            embedded = self.encoder.embeddings_project(embedded)
        return embedded[0]

    def project(self, layer: Layer, x_MH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values `[M, H]` of a layer's input."""
        return linear(layer.query, x_MH), linear(layer.key, x_MH), linear(layer.value, x_MH)

    def feed_forward(self, layer: Layer, hidden_MH: torch.Tensor, projected_MH: torch.Tensor) -> torch.Tensor:
        """A layer's output from its input and its projected context: residual, norm, feed-forward part, norm."""
        p, training = self.hidden_dropout, self.model.training
        inner_MH: torch.Tensor = layer.attention_norm(F.dropout(projected_MH, p, training) + hidden_MH)
        widened_MI = linear(layer.first, inner_MH, layer.activation)
        output_MH: torch.Tensor = layer.norm(F.dropout(linear(layer.last, widened_MI), p, training) + inner_MH)
        return output_MH

    def classify(self, first_BH: torch.Tensor) -> torch.Tensor:
        """Logits `[B, C]` from the last state of each text's first token."""
        logits_BC: torch.Tensor = self.family.head(self.model, first_BH[:, None])
        return logits_BC


def check_type(config: Any) -> None:
    """Refuse a configuration of another architecture than the table's, of a decoder, or with relative positions."""
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


def first_position(config: Any) -> int:
    """The position of a text's first token."""
    pad = getattr(config, "pad_token_id", None)
    return int(pad) + 1 if FAMILIES[config.model_type].after_padding and pad is not None else 0


def most_positions(config: Any) -> int:
    """Tokens of the longest text that a model of the table reads, special ones included."""
    return int(config.max_position_embeddings) - first_position(config)
