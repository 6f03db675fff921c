"""What the loop trains: an encoder's weights, alone or with its thresholds, in the three stages of token pruning.

baseline  cross-entropy, nothing pruned
soft      cross-entropy + lambda * sum over layers of the mean soft mask; thresholds and weights (section 3.3)
hard      cross-entropy behind a fixed rule: the tokens that it removes are gone, in training too (section 3.4)

Weights and their gradients are float32: in bfloat16, a step of 2e-5 would be rounded away. Matrix products are in
bfloat16 where that was asked for, by autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from softprune.token_pruning.families import Encoder
from softprune.token_pruning.forward import forward, soft_forward
from softprune.token_pruning.packing import Packed, pack
from softprune.token_pruning.rules import Convention, Rule, Thresholds
from softprune.training.trainable import WeightsTrainable, products_in
from softprune.types import Batch

THRESHOLDS = "thresholds.delta_L"
"""The name of the thresholds among what a soft stage trains."""


class EncoderTrainable(WeightsTrainable):
    """One encoder in one stage.

    Args:
        encoder: the model; its weights are trained.
        rule: which tokens stay; in the soft stage the thresholds that are trained.
        convention: how importance is counted.
        price: lambda of the soft stage; None for the others.
        compute: dtype of the matrix products.
    """

    def __init__(
        self, encoder: Encoder, rule: Rule, convention: Convention, price: float | None, compute: torch.dtype
    ) -> None:
        self.encoder, self.rule, self.convention, self.price = encoder, rule, convention, price
        self.compute = compute
        named = dict(encoder.model.named_parameters())
        if price is not None:
            assert isinstance(rule, Thresholds)
            named[THRESHOLDS] = rule.delta_L
        super().__init__(named)

    def loss(self, batch: Batch) -> torch.Tensor:
        """`[1, B]`."""
        self.encoder.model.train()
        packed = repack(batch)
        gold_B = batch.gold.to(self.encoder.device)
        with autocast(self.encoder, self.compute):
            if self.price is None:
                output = forward(self.encoder, packed, self.rule, self.convention)
            else:
                assert isinstance(self.rule, Thresholds)
                output = soft_forward(self.encoder, packed, self.rule)
        loss_B = F.cross_entropy(output.logits_BC.float(), gold_B, reduction="none")
        if self.price is not None and output.soft_B is not None:
            loss_B = loss_B + self.price * output.soft_B.float()
        return loss_B[None]


def autocast(encoder: Encoder, compute: torch.dtype) -> torch.autocast:
    """Matrix products in a dtype, where the weights are in another."""
    return products_in(compute, encoder.dtype, encoder.device)


def repack(batch: Batch) -> Packed:
    """A padded batch without its padding."""
    lengths = batch.input_mask.sum(1).tolist()
    device = batch.input_ids.device
    texts = [ids[:length] for ids, length in zip(batch.input_ids.tolist(), lengths, strict=True)]
    return pack(texts, device)


def set_dropout(encoder: Encoder, hidden: float | None, attention: float) -> None:
    """The dropout of hidden states (None: the model's own) and of attention; also in modules that we only call."""
    encoder.attention_dropout = attention
    if hidden is None:
        return
    encoder.hidden_dropout = hidden
    for module in encoder.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = hidden
