"""Decoder-only backbones: GPT-2, BLOOM, Llama and their kin. The answer continues the text."""

from __future__ import annotations

from typing import Any

import torch

from softprune.backbone.architectures import answer_logits, verify_head
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
        """Read prompt, text and answer as one sequence an answer; logits at the answers' positions only."""
        rows, length = prompts_RPH.shape[:2]
        answers = batch.answer_ids.shape[1]
        ids, mask, start = self._with_answers(batch)
        combined = self.combine(prompts_RPH.repeat_interleave(answers, dim=0), ids, mask)
        hidden = self.model.base_model(
            inputs_embeds=combined.embeds_RLH, attention_mask=combined.mask_RL, use_cache=False
        ).last_hidden_state.unflatten(0, (rows, answers))
        ids_RAT, mask_RAT = tile(batch.answer_ids, rows), tile(batch.answer_mask, rows)
        # The token at position p is predicted at p - 1.
        at_RAT = tile(start, rows)[:, None, None] + length - 1
        at_RAT = at_RAT + torch.arange(ids_RAT.shape[2], device=ids.device)
        row, answer, _ = torch.nonzero(mask_RAT, as_tuple=True)
        predicted_MH = hidden[row, answer, at_RAT.expand_as(mask_RAT)[mask_RAT]]
        logits_MV = answer_logits(self.model, predicted_MH)
        return scatter_sums(token_log_probs(logits_MV, ids_RAT[mask_RAT]), mask_RAT)

    def generate(self, prompt_PH: torch.Tensor, batch: Batch, max_new_tokens: int) -> list[str]:
        """Greedy continuation with transformers' own generation, rows padded on the left as it wants them."""
        with torch.no_grad():
            prompts = prompt_PH.expand(len(batch), *prompt_PH.shape)
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

    def _with_answers(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs with each answer behind them: ids and mask `[B * A, N + T]`, and where answers start, `[B]`."""
        size, answers, tokens = batch.answer_ids.shape
        start_B = batch.input_mask.sum(1)
        pad = (0, tokens)
        ids = torch.nn.functional.pad(batch.input_ids, pad).repeat_interleave(answers, dim=0)
        mask = torch.nn.functional.pad(batch.input_mask, pad).repeat_interleave(answers, dim=0)
        at = start_B.repeat_interleave(answers)[:, None] + torch.arange(tokens, device=ids.device)
        ids = ids.scatter(1, at, batch.answer_ids.reshape(size * answers, tokens))
        mask = mask.scatter(1, at, batch.answer_mask.reshape(size * answers, tokens).long())
        used = int(mask.sum(1).max())
        return ids[:, :used], mask[:, :used], start_B

    @torch.no_grad()
    def _verify(self) -> None:
        ids = torch.tensor([[3, 5]], device=self.device)
        theirs = self.model(input_ids=ids, use_cache=False).logits[0]
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        verify_head(answer_logits(self.model, hidden), theirs, self.model.config.model_type)
