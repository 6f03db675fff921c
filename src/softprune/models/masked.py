"""Masked language models: BERT, RoBERTa and similar models. The answer is read at the mask."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from softprune.errors import SoftpruneError
from softprune.models.architectures import masked_head
from softprune.models.base import Backbone, BackboneInfo, tile
from softprune.models.fused.bert import FrozenBert, suits
from softprune.models.tokenization import Tokenization, continuation_ids
from softprune.types import Batch, Encoded


class MaskedBackbone(Backbone):
    """A masked model: an answer of n tokens is read at n mask tokens, all scored in one forward.

    Answers of equal length read the same input, so a call costs one forward per distinct length.
    """

    family = "masked"
    default_loss = "rank"
    leading = 1

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo) -> None:
        super().__init__(model, tokenizer, info)
        if tokenizer.mask_token_id is None:
            raise SoftpruneError("a tokenizer with a mask token", f"none in {info.name}", "copy its tokenizer again")
        self.fused = FrozenBert(self.trunk) if suits(self.trunk) else None

    def tokenization(self) -> Tokenization:
        """One mask token holds the answer's place; the forward widens it to the answer's length."""
        tokenizer = self.tokenizer
        return Tokenization(tokenizer, tokenizer.mask_token, lambda text: continuation_ids(tokenizer, text))

    def answer_sums(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Sum of the log-probabilities of an answer's tokens, each at its own mask."""
        prompts_RPH = self.add_routed(prompts_RPH, batch)
        rows, prompt_length = prompts_RPH.shape[:2]
        counts_BA = batch.answer_mask.sum(-1)
        first_R = tile(batch.slot, rows) + prompt_length
        sums_RA = torch.full((rows, counts_BA.shape[1]), float("-inf"), dtype=self.prompt_dtype, device=self.device)
        for length in sorted(set(counts_BA.flatten().tolist()) - {0}):
            ids, mask = widen(batch, length, int(self.tokenizer.mask_token_id))
            hidden_RLH = self.read_encoder(*self.combine(prompts_RPH, ids, mask))
            place_T = torch.arange(length, device=self.device)
            at_RT1 = (first_R[:, None] + place_T)[..., None]
            logits_RTV = masked_head(self.model, hidden_RLH.gather(1, at_RT1.expand(-1, -1, hidden_RLH.shape[2])))
            wide = torch.promote_types(logits_RTV.dtype, torch.float32)
            log_probs_RTV = F.log_softmax(logits_RTV.to(wide), dim=-1)
            row, answer = torch.nonzero(tile(counts_BA, rows) == length, as_tuple=True)
            targets_MT = tile(batch.answer_ids, rows)[row, answer, :length]
            values_M = log_probs_RTV[row[:, None], place_T, targets_MT].sum(1)
            sums_RA = sums_RA.index_put((row, answer), values_M.to(sums_RA.dtype))
        return sums_RA

    def read_ids(self, ids_1N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of tokens, by encoder and head apart and by the model's own forward."""
        hidden = self.read_encoder(self.lookup(ids_1N), torch.ones_like(ids_1N))
        return masked_head(self.model, hidden[0]), self.model(input_ids=ids_1N).logits[0]

    def read_plainly(self, prompt_PH: torch.Tensor, example: Encoded) -> torch.Tensor:
        """Logits at the answer's masks, by the model's own forward."""
        masks = [int(self.tokenizer.mask_token_id)] * len(example.answer_ids[example.gold])
        ids = [*example.input_ids[: example.slot], *masks, *example.input_ids[example.slot + 1 :]]
        text = self.lookup(torch.tensor(ids, device=self.device))
        embeds = torch.cat([text[: self.leading], prompt_PH.to(text.dtype), text[self.leading :]])
        first = example.slot + len(prompt_PH)
        logits: torch.Tensor = self.model(inputs_embeds=embeds[None]).logits[0]
        return logits[first : first + len(masks)]


def widen(batch: Batch, length: int, mask_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace each row's answer slot by `length` mask tokens: ids and mask `[B, N + length - 1]`."""
    extra = length - 1
    width = batch.input_ids.shape[1] + extra
    column = torch.arange(width, device=batch.input_ids.device).expand(len(batch), -1)
    slot = batch.slot[:, None]
    source = torch.where(column <= slot, column, torch.maximum(column - extra, slot))
    ids = batch.input_ids.gather(1, source)
    inside = (column >= slot) & (column <= slot + extra)
    return ids.masked_fill(inside, mask_id), batch.input_mask.gather(1, source)
