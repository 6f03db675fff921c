"""Decoder-only backbones: GPT-2, BLOOM, Llama and their kin. The answer continues the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from softprune.backbone.architectures import answer_logits, verify
from softprune.backbone.base import Backbone, BackboneInfo, scatter_sums, tile, token_log_probs
from softprune.backbone.encode import Tokenising, continuation_ids
from softprune.types import Batch


class CausalBackbone(Backbone):
    """A decoder-only model. The prompt stands before everything, a beginning-of-sequence token included."""

    family = "causal"
    default_loss = "likelihood"

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo) -> None:
        super().__init__(model, tokenizer, info)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._verify()

    def tokenising(self) -> Tokenising:
        """Nothing stands at the answer slot; an answer follows after a space."""
        return Tokenising(self.tokenizer, "", lambda text: continuation_ids(self.tokenizer, text))

    def answer_sums(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Read prompt, text and stem as one sequence a stem; logits at the answers' positions only."""
        rows, length = prompts_RPH.shape[:2]
        stems = stems_of(batch)
        ids, mask, start = with_stems(batch, stems)
        combined = self.combine(prompts_RPH.repeat_interleave(stems.count, dim=0), ids, mask)
        hidden = (
            self.model.base_model(inputs_embeds=combined.embeds_RLH, attention_mask=combined.mask_RL, use_cache=False)
            .last_hidden_state.to(self.device)
            .unflatten(0, (rows, stems.count))
        )
        ids_RAT, mask_RAT = tile(batch.answer_ids, rows), tile(batch.answer_mask, rows)
        row, answer, token = torch.nonzero(mask_RAT, as_tuple=True)
        stem_M = torch.where(token == 0, 0, tile(stems.which_BA, rows)[row, answer])  # a first token follows no stem
        # The token at position p is predicted at p - 1.
        at_M = tile(start, rows)[row] + length - 1 + token
        place_U, which_M = ((row * stems.count + stem_M) * hidden.shape[2] + at_M).unique(return_inverse=True)
        logits_UV = answer_logits(self.model, hidden.flatten(0, 2)[place_U])
        return scatter_sums(token_log_probs(logits_UV, which_M, ids_RAT[mask_RAT]), mask_RAT)

    def generate(self, prompts_BPH: torch.Tensor, batch: Batch, max_new_tokens: int) -> list[str]:
        """Greedy continuation with transformers' own generation, rows padded on the left as it wants them."""
        with self.generating():
            prompts = prompts_BPH.expand(len(batch), *prompts_BPH.shape[-2:])
            combined = self.combine(prompts, batch.input_ids, batch.input_mask)
            lengths = combined.mask_RL.sum(1, keepdim=True)
            width = combined.mask_RL.shape[1]
            order = (torch.arange(width, device=self.device) + lengths) % width
            embeds = combined.embeds_RLH.gather(1, order[..., None].expand(-1, -1, combined.embeds_RLH.shape[2]))
            tokens = self.model.generate(
                inputs_embeds=embeds,
                attention_mask=combined.mask_RL.gather(1, order),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        texts: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    @torch.no_grad()
    def _verify(self) -> None:
        ids = self.probe()
        theirs = self.model(input_ids=ids, use_cache=False).logits[0]
        hidden = self.model.base_model(inputs_embeds=self.lookup(ids), use_cache=False).last_hidden_state[0]
        verify(answer_logits(self.model, hidden), theirs, self.model.config.model_type)


@dataclass(frozen=True, slots=True)
class Stems:
    """The distinct stems of each example's answers. A stem is an answer without its last token, which is never read.

    Answers of one token share the empty stem, so their text is read once for all of them.

    Attributes:
        ids_BUT, mask_BUT: `[B, U, T - 1]`, U distinct stems at most.
        which_BA: each answer's stem.
    """

    ids_BUT: torch.Tensor
    mask_BUT: torch.Tensor
    which_BA: torch.Tensor

    @property
    def count(self) -> int:
        """U."""
        return int(self.ids_BUT.shape[1])


def stems_of(batch: Batch) -> Stems:
    """Find the distinct stems of a batch's answers."""
    which, firsts = [], []
    for ids_A, mask_A in zip(batch.answer_ids.tolist(), batch.answer_mask.tolist(), strict=True):
        stems = [tuple(ids[: max(0, sum(mask) - 1)]) for ids, mask in zip(ids_A, mask_A, strict=True)]
        distinct = list(dict.fromkeys(stems))
        which.append([distinct.index(stem) for stem in stems])
        firsts.append([stems.index(stem) for stem in distinct])
    widest = max(map(len, firsts))
    device = batch.answer_ids.device
    # The first answer that has a stem stands for it; examples with fewer stems repeat one of theirs.
    chosen_BU = torch.tensor([row + row[:1] * (widest - len(row)) for row in firsts], device=device)
    at_B1 = torch.arange(len(batch), device=device)[:, None]
    return Stems(
        batch.answer_ids[at_B1, chosen_BU, :-1],
        batch.answer_mask[at_B1, chosen_BU, 1:],
        torch.tensor(which, device=device),
    )


def with_stems(batch: Batch, stems: Stems) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs with each stem behind them: ids and mask `[B * U, N + T - 1]`, and where answers start, `[B]`."""
    start_B = batch.input_mask.sum(1)
    tokens = stems.ids_BUT.shape[2]
    ids = F.pad(batch.input_ids, (0, tokens)).repeat_interleave(stems.count, dim=0)
    mask = F.pad(batch.input_mask, (0, tokens)).repeat_interleave(stems.count, dim=0)
    at = start_B.repeat_interleave(stems.count)[:, None] + torch.arange(tokens, device=ids.device)
    ids = ids.scatter(1, at, stems.ids_BUT.flatten(0, 1))
    mask = mask.scatter(1, at, stems.mask_BUT.flatten(0, 1).long())
    used = int(mask.sum(1).max())
    return ids[:, :used], mask[:, :used], start_B
