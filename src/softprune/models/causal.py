"""Decoder-only backbones: GPT-2, BLOOM, Llama and similar models. The answer continues the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from softprune.models.architectures import answer_logits
from softprune.models.base import Backbone, BackboneInfo, tile
from softprune.models.fused.layers import additive_mask
from softprune.models.load_check import check_reading
from softprune.models.log_probs import scatter_sums, token_log_probs
from softprune.models.probe import Probe
from softprune.models.tokenization import Tokenization, continuation_ids
from softprune.types import Batch

PACKED = ("gpt2", "llama")
"""Model types that take positions, and a mask of pairs of them; BLOOM makes both itself, of a mask of tokens."""


class CausalBackbone(Backbone):
    """A decoder-only model. The prompt comes before everything, a beginning-of-sequence token included."""

    family = "causal"
    default_loss = "likelihood"

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo) -> None:
        super().__init__(model, tokenizer, info)
        if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token
        self._generate_plainly()
        check_reading(self)

    def tokenization(self) -> Tokenization:
        """Nothing fills the answer slot; an answer follows after a space, and a written text ends."""
        tokenizer, end = self.tokenizer, next(iter(self.end_ids()), None)
        return Tokenization(tokenizer, "", lambda text: continuation_ids(tokenizer, text), end, goes_on=True)

    def answer_sums(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Read prompt, text and the answers' stems; logits at the answers' positions only."""
        rows = prompts_RPH.shape[0]
        stems = find_stems(batch)
        ids_RAT, mask_RAT = tile(batch.answer_ids, rows), tile(batch.answer_mask, rows)
        row, answer, token = torch.nonzero(mask_RAT, as_tuple=True)
        stem_M = torch.where(token == 0, 0, tile(stems.which_BA, rows)[row, answer])  # a first token follows no stem
        packs = stems.count > 1 and self.model.config.model_type in PACKED
        read = self._read_packed if packs else self._read_apart
        hidden_MH, at_M = read(prompts_RPH, batch, stems, Place(row, stem_M, token))
        place_U, which_M = at_M.unique(return_inverse=True)
        logits_UV = answer_logits(self.model, hidden_MH.to(self.device)[place_U])
        return scatter_sums(token_log_probs(logits_UV, which_M, ids_RAT[mask_RAT]), mask_RAT)

    def _read_apart(
        self, prompts_RPH: torch.Tensor, batch: Batch, stems: Stems, place: Place
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A sequence a stem, with prompt and text read again for each.

        Returns:
            All hidden states, and where in them each answer token is predicted.
        """
        rows, length = prompts_RPH.shape[:2]
        ids, mask, start = with_stems(batch, stems)
        combined = self.combine(prompts_RPH.repeat_interleave(stems.count, dim=0), ids, mask)
        hidden = self.trunk(
            inputs_embeds=combined.embeds_RLH, attention_mask=combined.mask_RL, use_cache=False
        ).last_hidden_state
        # The token at position p is predicted at p - 1.
        at_M = tile(start, rows)[place.row] + length - 1 + place.token
        return hidden.flatten(0, 1), (place.row * stems.count + place.stem) * hidden.shape[1] + at_M

    def _read_packed(
        self, prompts_RPH: torch.Tensor, batch: Batch, stems: Stems, place: Place
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same with one sequence a row: prompt and text once, then every stem, which sees them and itself.

        A stem's positions go on where its text ends, whatever is between the two.
        """
        rows, length = prompts_RPH.shape[:2]
        width, text = stems.ids_BUT.shape[2], length + batch.input_ids.shape[1]
        ids = torch.cat([batch.input_ids, stems.ids_BUT.flatten(1)], dim=1)
        mask = torch.cat([batch.input_mask, stems.mask_BUT.flatten(1).long()], dim=1)
        combined = self.combine(prompts_RPH, ids, mask)
        end_R = tile(batch.input_mask.sum(1), rows) + length
        in_text = torch.arange(text, device=ids.device).expand(rows, -1)
        in_stems = torch.arange(width, device=ids.device).repeat(stems.count)
        sees = sees_packed(text, stems.count, width, ids.device) & combined.mask_RL[:, None, None, :].bool()
        # A padded place sees itself: a softmax over nothing would be no number.
        sees |= torch.eye(sees.shape[-1], dtype=torch.bool, device=ids.device)
        hidden = self.trunk(
            inputs_embeds=combined.embeds_RLH,
            attention_mask=additive_mask(~sees, combined.embeds_RLH.dtype),
            position_ids=torch.cat([in_text, end_R[:, None] + in_stems], dim=1),
            use_cache=False,
        ).last_hidden_state
        at_M = torch.where(place.token == 0, end_R[place.row] - 1, text + place.stem * width + place.token - 1)
        return hidden.flatten(0, 1), place.row * hidden.shape[1] + at_M

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
                pad_token_id=self.pad_id,
                eos_token_id=self.end_ids() or None,
            )
        return self.decode_generated(tokens.tolist())

    def read_ids(self, ids_1N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of tokens, by trunk and head apart and by the model's own forward."""
        hidden = self.trunk(inputs_embeds=self.lookup(ids_1N), use_cache=False).last_hidden_state
        return answer_logits(self.model, hidden[0]), self.model(input_ids=ids_1N, use_cache=False).logits[0]

    def read_plainly(self, prompt_PH: torch.Tensor, probe: Probe) -> torch.Tensor:
        """Logits at the answer's places, by the model's own forward."""
        text = self.lookup(torch.tensor([*probe.text, *probe.answer], device=self.device))
        embeds = torch.cat([prompt_PH.to(text.dtype), text])
        logits: torch.Tensor = self.model(inputs_embeds=embeds[None], use_cache=False).logits[0]
        return logits[len(embeds) - len(probe.answer) - 1 : -1]


@dataclass(frozen=True, slots=True)
class Place:
    """Of each of the M answer tokens: the row, the stem that it follows, and its place in the answer; all `[M]`."""

    row: torch.Tensor
    stem: torch.Tensor
    token: torch.Tensor


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


def find_stems(batch: Batch) -> Stems:
    """Find the distinct stems of a batch's answers."""
    which, firsts = [], []
    lengths_BA = (batch.answer_mask.sum(-1) - 1).clamp(min=0).tolist()
    for ids_A, lengths_A in zip(batch.answer_ids.tolist(), lengths_BA, strict=True):
        stems = [tuple(ids[:length]) for ids, length in zip(ids_A, lengths_A, strict=True)]
        distinct = list(dict.fromkeys(stems))
        which.append([distinct.index(stem) for stem in stems])
        firsts.append([stems.index(stem) for stem in distinct])
    widest = max(map(len, firsts))
    device = batch.answer_ids.device
    # A stem is read from the first answer that has it; examples with fewer stems repeat one of theirs.
    chosen_BU = torch.tensor([row + row[:1] * (widest - len(row)) for row in firsts], device=device)
    at_B1 = torch.arange(len(batch), device=device)[:, None]
    return Stems(
        batch.answer_ids[at_B1, chosen_BU, :-1],
        batch.answer_mask[at_B1, chosen_BU, 1:],
        torch.tensor(which, device=device),
    )


def sees_packed(text: int, stems: int, width: int, device: torch.device) -> torch.Tensor:
    """What sees what `[L, L]`: a text of so many positions sees what is before it; a stem sees the text and itself."""
    before = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    own = torch.block_diag(*[before] * stems)
    sees = torch.ones(text + own.shape[0], text + own.shape[0], dtype=torch.bool, device=device).tril()
    sees[text:, text:] = own
    return sees


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
