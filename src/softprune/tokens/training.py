"""What the loop trains: an encoder's weights, alone or with its thresholds, in the three stages of token pruning.

baseline  cross-entropy, nothing pruned
soft      cross-entropy + lambda * sum over layers of the mean soft mask; thresholds and weights (section 3.3)
hard      cross-entropy behind a fixed rule: the tokens it takes away are gone, in training too (section 3.4)

Weights and their gradients are float32; matrix products are bfloat16 where that was asked for, by autocast: a step of
2e-5 on weights in bfloat16 would round to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from softprune.tokens.families import Anatomy
from softprune.tokens.packed import Packed, pack
from softprune.tokens.rules import Convention, Rule, Thresholds
from softprune.tokens.walk import hard_pass, soft_pass
from softprune.types import Batch

_NO_DECAY = ("bias", "norm")  # as everywhere in fine-tuning: vectors aren't pulled to zero


class EncoderTrainable:
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
        self._named = dict(anatomy.model.named_parameters())
        if price is not None:
            assert isinstance(rule, Thresholds)
            self._named["thresholds.delta_L"] = rule.delta_L

    @property
    def candidates(self) -> int:
        """One."""
        return 1

    def parameters(self) -> list[nn.Parameter]:
        """All weights, and the thresholds where they are trained."""
        return list(self._named.values())

    def named(self) -> dict[str, nn.Parameter]:
        """The same by name."""
        return dict(self._named)

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

    def save(self) -> dict[str, torch.Tensor]:
        """Current values, with an axis for the one candidate."""
        return {name: value.detach().clone()[None] for name, value in self._named.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take saved values back, in place."""
        with torch.no_grad():
            for name, value in self._named.items():
                value.copy_(tensors[name][0])

    def keep(self, indices: Sequence[int]) -> None:
        """There is only one."""


class FineTuner(torch.optim.AdamW):
    """AdamW whose step sizes rise and then fall linearly to 0, behind a clip of the gradient's norm.

    Args:
        trainable: what is trained; thresholds have a step size of their own and no decay.
        lr, threshold_lr: step sizes at their highest.
        weight_decay: of matrices.
        warmup: share of the steps over which step sizes rise.
        steps: in all.
        clip_norm: largest norm of a gradient; thresholds aside.
    """

    def __init__(
        self,
        trainable: EncoderTrainable,
        *,
        lr: float,
        threshold_lr: float,
        weight_decay: float,
        warmup: float,
        steps: int,
        clip_norm: float,
    ) -> None:
        named = trainable.named()
        thresholds = [named.pop(name) for name in list(named) if name.startswith("thresholds.")]
        plain = [p for name, p in named.items() if any(part in name.lower() for part in _NO_DECAY)]
        decayed = [p for name, p in named.items() if not any(part in name.lower() for part in _NO_DECAY)]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "lr": lr, "weight_decay": weight_decay},
            {"params": plain, "lr": lr, "weight_decay": 0.0},
        ]
        if thresholds:
            groups.append({"params": thresholds, "lr": threshold_lr, "weight_decay": 0.0})
        # One pass over memory instead of ten, and no slow roots of denormal moments (of words that no text holds).
        super().__init__(groups, lr=lr, fused=trainable.anatomy.device.type in ("cpu", "cuda"))
        self._highest = [group["lr"] for group in self.param_groups]
        self._weights = [*decayed, *plain]
        self._warm, self._steps, self._clip = max(1, round(warmup * steps)), steps, clip_norm

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update at the step size of its place."""
        del closure
        nn.utils.clip_grad_norm_([p for p in self._weights if p.grad is not None], self._clip)
        first = next((state for state in self.state.values() if "step" in state), None)
        done = 0 if first is None else int(first["step"])  # all parameters have made as many
        share = min((done + 1) / self._warm, (self._steps - done) / max(1, self._steps - self._warm))
        for group, highest in zip(self.param_groups, self._highest, strict=True):
            group["lr"] = highest * max(0.0, share)
        super().step()


def autocast(anatomy: Anatomy, compute: torch.dtype) -> Any:
    """Matrix products in a dtype, where the weights are in another."""
    wanted = compute != anatomy.dtype
    return torch.autocast(anatomy.device.type, dtype=compute if wanted else None, enabled=wanted)


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
