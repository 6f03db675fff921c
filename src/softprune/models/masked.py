"""Masked language models: BERT, RoBERTa and similar models. The answer is read at the mask."""

from __future__ import annotations

from typing import Any

import torch

from softprune.errors import SoftpruneError
from softprune.models.architectures import masked_head
from softprune.models.base import Backbone, BackboneInfo, tile
from softprune.models.fused.bert import Encoder
from softprune.models.load_check import check_reading
from softprune.models.log_probs import log_probs
from softprune.models.probe import Probe
from softprune.models.tokenization import Tokenization, continuation_ids
from softprune.types import Batch


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
            raise SoftpruneError(
                "a tokenizer with a mask token",
                f"none in {info.name}",
                "copy its tokenizer again",
            )
        self._encoder = Encoder(model.base_model)
        check_reading(self)

    def tokenization(self) -> Tokenization:
        """One mask token holds the answer's place; the forward widens it to the answer's length."""
        return Tokenization(
            self.tokenizer,
            self.tokenizer.mask_token,
            lambda text: continuation_ids(self.tokenizer, text),
        )

    def answer_sums(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Sum of the log-probabilities of an answer's tokens, each at its own mask."""
        rows = prompts_RPH.shape[0]
        counts_BA = batch.answer_mask.sum(-1)
        sums_RA = torch.full((rows, counts_BA.shape[1]), float("-inf"), dtype=self.prompt_dtype, device=self.device)
        for length in sorted({int(n) for n in counts_BA.unique()} - {0}):
            hidden_RTH = self._at_masks(prompts_RPH, batch, length)
            row, answer = torch.nonzero(tile(counts_BA, rows) == length, as_tuple=True)
            targets_MT = tile(batch.answer_ids, rows)[row, answer, :length]
            log_probs_RTV = log_probs(masked_head(self.model, hidden_RTH))
            values_M = log_probs_RTV[row[:, None], torch.arange(length, device=row.device), targets_MT].sum(1)
            sums_RA = sums_RA.index_put((row, answer), values_M.to(sums_RA.dtype))
        return sums_RA

    def _at_masks(self, prompts_RPH: torch.Tensor, batch: Batch, length: int) -> torch.Tensor:
        """Last hidden states at the `length` masks of each row, `[R, length, H]`."""
        rows, prompt_length = prompts_RPH.shape[:2]
        ids, mask = widen(batch, length, int(self.tokenizer.mask_token_id))
        combined = self.combine(prompts_RPH, ids, mask)
        hidden_RLH = self._encoder(combined.embeds_RLH, combined.mask_RL, self.adapter.is_active).to(self.device)
        first_R = tile(batch.slot, rows) + prompt_length
        at_RT = first_R[:, None] + torch.arange(length, device=hidden_RLH.device)
        at_masks: torch.Tensor = hidden_RLH.gather(1, at_RT[..., None].expand(-1, -1, hidden_RLH.shape[2]))
        return at_masks

    def drop_fused_layers(self) -> None:
        """Leave out the layers of our own."""
        self._encoder.fast = None

    def read_ids(self, ids_1N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of tokens, by encoder and head apart and by the model's own forward."""
        hidden = self._encoder(self.lookup(ids_1N), torch.ones_like(ids_1N), adapted=True)
        return masked_head(self.model, hidden[0]), self.model(input_ids=ids_1N).logits[0]

    def read_plainly(self, prompt_PH: torch.Tensor, probe: Probe) -> torch.Tensor:
        """Logits at the answer's masks, by the model's own forward."""
        masks = [int(self.tokenizer.mask_token_id)] * len(probe.answer)
        ids = [*probe.text[: probe.slot], *masks, *probe.text[probe.slot + 1 :]]
        text = self.lookup(torch.tensor(ids, device=self.device))
        embeds = torch.cat([text[: self.leading], prompt_PH.to(text.dtype), text[self.leading :]])
        first = probe.slot + len(prompt_PH)
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
