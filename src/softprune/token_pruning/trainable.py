"""What the loop trains: an encoder's weights, alone or with its thresholds, in the three stages of token pruning.

baseline  cross-entropy, nothing pruned
soft      cross-entropy + lambda * sum over layers of the mean soft mask; thresholds and weights (section 3.3)
hard      cross-entropy behind a fixed rule: the tokens it takes away are gone, in training too (section 3.4)

Weights and their gradients are float32; matrix products are bfloat16 where that was asked for, by autocast: a step of
2e-5 on weights in bfloat16 would round to nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from softprune.token_pruning.families import Anatomy
from softprune.token_pruning.forward import hard_pass, soft_pass
from softprune.token_pruning.packing import Packed, pack
from softprune.token_pruning.rules import Convention, Rule, Thresholds
from softprune.training.trainable import WeightsTrainable, products_in
from softprune.types import Batch

THRESHOLDS = "thresholds.delta_L"
"""The name of the thresholds among what a soft stage trains."""


class EncoderTrainable(WeightsTrainable):
    """One encoder in one stage.

    Args:
        anatomy: the model; its weights are trained.
        rule: who stays; in the soft stage the thresholds that are trained.
        convention: how importance is counted.
        price: lambda of the soft stage; None for the others.
        compute: dtype of the matrix products.
    """

    def __init__(
        self, anatomy: Anatomy, rule: Rule, convention: Convention, price: float | None, compute: torch.dtype
    ) -> None:
        self.anatomy, self.rule, self.convention, self.price = anatomy, rule, convention, price
        self.compute = compute
        named = dict(anatomy.model.named_parameters())
        if price is not None:
            assert isinstance(rule, Thresholds)
            named[THRESHOLDS] = rule.delta_L
        super().__init__(named)

    def loss(self, batch: Batch) -> torch.Tensor:
        """`[1, B]`."""
        self.anatomy.model.train()
        packed = packed_of(batch)
        gold_B = batch.gold.to(self.anatomy.device)
        with autocast(self.anatomy, self.compute):
            if self.price is None:
                read = hard_pass(self.anatomy, packed, self.rule, self.convention)
            else:
                assert isinstance(self.rule, Thresholds)
                read = soft_pass(self.anatomy, packed, self.rule)
        loss_B = F.cross_entropy(read.logits_BC.float(), gold_B, reduction="none")
        if self.price is not None and read.soft_B is not None:
            loss_B = loss_B + self.price * read.soft_B.float()
        return loss_B[None]


def autocast(anatomy: Anatomy, compute: torch.dtype) -> torch.autocast:
    """Matrix products in a dtype, where the weights are in another."""
    return products_in(compute, anatomy.dtype, anatomy.device)


def packed_of(batch: Batch) -> Packed:
    """A padded batch without its padding."""
    lengths = batch.input_mask.sum(1).tolist()
    device = batch.input_ids.device
    texts = [ids[:length] for ids, length in zip(batch.input_ids.tolist(), lengths, strict=True)]
    return pack(texts, device)


def set_dropout(anatomy: Anatomy, hidden: float | None, attention: float) -> None:
    """The dropout of hidden states (None: the model's own) and of attention; also in modules that we only call."""
    anatomy.attention_dropout = attention
    if hidden is None:
        return
    anatomy.hidden_dropout = hidden
    for module in anatomy.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = hidden
