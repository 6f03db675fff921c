"""Encoder-decoder backbones: T5, mT5, BART. The prompt goes to the encoder, the answer is what the decoder says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from softprune.errors import SoftpruneError
from softprune.models.architectures import answer_logits
from softprune.models.base import BackboneInfo, repeat_rows, tile
from softprune.models.fused.layers import additive_mask
from softprune.models.fused.t5 import FrozenT5, suits
from softprune.models.generation import REREAD, GenerativeBackbone
from softprune.models.log_probs import TokenPredictions
from softprune.models.tokenization import Tokenization, ids_behind
from softprune.types import Batch, Encoded

RELATIVE = ("t5", "mt5")  # model types whose decoders know positions by their distances alone


class Seq2SeqBackbone(GenerativeBackbone):
    """An encoder-decoder model; answers are scored with their end-of-sequence token."""

    family = "seq2seq"

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo) -> None:
        super().__init__(model, tokenizer, info)
        self._start = self._decoder_start()
        self.fused = FrozenT5(model) if suits(model) else None

    def _decoder_start(self) -> list[int]:
        """What the decoder is given: its start token and whatever special tokens the tokenizer puts before a target.

        BART's targets open with `<s>`, which is no part of the answer.
        """
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id, self.tokenizer.eos_token_id}
        lead = []
        for token in self.tokenizer(text_target="a")["input_ids"]:
            if token not in special:
                break
            lead.append(token)
        start = self.stated_ids("decoder_start_token_id") or self.stated_ids("bos_token_id")
        if not start:
            raise SoftpruneError(
                "a model that states the token that its decoder starts with",
                "neither decoder_start_token_id nor bos_token_id in its configuration",
                "add decoder_start_token_id to its config.json",
            )
        return [start[0], *lead]

    @property
    def trunk(self) -> Any:
        """The decoder: a prefix precedes its own attention, not that to the encoder."""
        return self.model.get_decoder()

    def tokenization(self) -> Tokenization:
        """Nothing fills the answer slot; an answer is what the tokenizer makes of a target text, and its end."""

        def answer_ids(text: str) -> tuple[int, ...]:
            ids = self.tokenizer(text_target=text)["input_ids"]
            before, behind = len(self._start) - 1, len(ids_behind(self.tokenizer, text_target="a"))
            return (*ids[before : len(ids) - behind], *self.end_ids()[:1])

        return Tokenization(self.tokenizer, "", answer_ids)

    def answer_sums(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Log-probabilities of the answers, `[R, A]`."""
        return self._predict(prompts_RPH, batch).answer_sums()

    def predict_tokens(
        self, prompts_KPH: torch.Tensor, batch: Batch, counts: Sequence[int] | None = None
    ) -> TokenPredictions:
        """A prompt is encoded with every row behind it."""
        return self._predict(repeat_rows(prompts_KPH, counts or [len(batch)] * len(prompts_KPH)), batch)

    def _predict(self, prompts_RPH: torch.Tensor, batch: Batch) -> TokenPredictions:
        """Encode each row once, then decode all of its answers against that encoding."""
        rows = prompts_RPH.shape[0]
        prompts_RPH = self.add_routed(prompts_RPH, batch)
        embeds_RLH, mask_RL = self.combine(prompts_RPH, batch.input_ids, batch.input_mask)
        memory_RLH = self._encode(embeds_RLH, mask_RL)
        ids_RAT, mask_RAT = tile(batch.answer_ids, rows), tile(batch.answer_mask, rows)
        answers = ids_RAT.shape[1]
        # Start tokens, then the answer shifted right by one. Causal attention makes right padding harmless.
        start = torch.tensor(self._start, device=ids_RAT.device).expand(rows, answers, -1)
        inputs_RAU = torch.cat([start, ids_RAT[:, :, :-1]], dim=2)
        hidden_RAUH = self._decode_answers(inputs_RAU, memory_RLH, mask_RL)
        predicted_RATH = hidden_RAUH[:, :, len(self._start) - 1 :]
        row, answer, token = torch.nonzero(mask_RAT, as_tuple=True)
        # Nothing of an answer is read yet where its first token is predicted: all answers share that place.
        after = torch.where(token == 0, 0, answer)
        place_U, which_M = ((row * answers + after) * mask_RAT.shape[2] + token).unique(return_inverse=True)
        logits_UV = answer_logits(self.model, predicted_RATH.flatten(0, 2)[place_U])
        return TokenPredictions(logits_UV, which_M, ids_RAT[mask_RAT], mask_RAT)

    def _decode_answers(self, ids_RAU: torch.Tensor, memory_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """The decoder's last hidden states `[R, A, U, H]`."""
        rows, answers, width = ids_RAU.shape
        # Where only distances within an answer count, all answers of a row follow one another in one sequence,
        # and none sees another: the memory's keys and values are computed once a row, not once an answer. Behind a
        # prefix it matters how far from it an answer is.
        if self.model.config.model_type in RELATIVE and not self.adapter.has_prefix:
            sees = torch.ones(width, width, dtype=torch.bool, device=ids_RAU.device).tril()
            hides_UU = ~torch.block_diag(*[sees] * answers)
            hidden: torch.Tensor = self._decode(ids_RAU.flatten(1), memory_RLH, mask_RL, hides_UU)
        else:
            memory, mask = memory_RLH.repeat_interleave(answers, dim=0), mask_RL.repeat_interleave(answers, dim=0)
            hidden = self._decode(ids_RAU.flatten(0, 1), memory, mask)
        return hidden.reshape(rows, answers, width, -1)

    def _encode(self, embeds_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        if self.fused is not None and not self.adapter.has_weights:  # a prefix is the decoder's alone
            memory: torch.Tensor = self.fused.encode(embeds_RLH, mask_RL)
        else:
            memory = self.model.get_encoder()(inputs_embeds=embeds_RLH, attention_mask=mask_RL).last_hidden_state
        return memory.to(self.device)

    def _decode(
        self,
        ids_RU: torch.Tensor,
        memory_RLH: torch.Tensor,
        memory_RL: torch.Tensor,
        hides_UU: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The decoder's last hidden states `[R, U, H]`; without `hides_UU` a position sees those before it."""
        rows, length = ids_RU.shape
        if self.fused is not None and not self.adapter.is_active and length < self.fused.most_positions:
            if hides_UU is None:
                hides_UU = torch.ones(length, length, dtype=torch.bool, device=ids_RU.device).triu(1)
            hidden: torch.Tensor = self.fused.decode(self.lookup(ids_RU), hides_UU, memory_RLH, memory_RL)
        else:
            mask = None if hides_UU is None else additive_mask(hides_UU, memory_RLH.dtype).expand(rows, 1, -1, -1)
            hidden = self.model.get_decoder()(
                input_ids=ids_RU,
                attention_mask=mask,
                encoder_hidden_states=memory_RLH,
                encoder_attention_mask=memory_RL,
                use_cache=False,
            ).last_hidden_state
        return hidden.to(self.device)

    def generate(self, prompts_BPH: torch.Tensor, batch: Batch, max_new_tokens: int) -> list[str]:
        """Greedy decoding with transformers' own generation."""
        with self.generating():
            prompts = self.add_routed(prompts_BPH.expand(len(batch), *prompts_BPH.shape[-2:]), batch)
            embeds, mask = self.combine(prompts, batch.input_ids, batch.input_mask)
            if self.model.config.model_type in REREAD:
                return self.decode_generated(self._reread(embeds, mask, max_new_tokens))
            encoded = self.model.get_encoder()(inputs_embeds=embeds, attention_mask=mask)
            tokens = self.continue_greedily(
                max_new_tokens,
                decoder_input_ids=torch.tensor(self._start, device=self.device).expand(len(batch), -1),
                encoder_outputs=BaseModelOutput(last_hidden_state=encoded.last_hidden_state),
                attention_mask=mask,
            )
        return self.decode_generated(tokens[:, len(self._start) :])

    def _reread(self, embeds_BLH: torch.Tensor, mask_BL: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
        """Token ids `[B, n]` of a greedy continuation; the decoder reads all of it again for each token."""
        memory_BLH, lead = self._encode(embeds_BLH, mask_BL), len(self._start)
        ids_BU = torch.tensor(self._start, device=self.device).expand(len(mask_BL), -1)
        while ids_BU.shape[1] - lead < max_new_tokens and not self.has_ended(ids_BU[:, lead:]):
            last_BH = self._decode(ids_BU, memory_BLH, mask_BL)[:, -1]
            ids_BU = torch.cat([ids_BU, answer_logits(self.model, last_BH).argmax(-1)[:, None]], dim=1)
        return ids_BU[:, lead:]

    def read_ids(self, ids_1N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of tokens, by encoder, decoder and head apart and by the model's own forward."""
        memory = self._encode(self.lookup(ids_1N), torch.ones_like(ids_1N))
        hidden = self._decode(ids_1N, memory, torch.ones_like(ids_1N))
        plain = self.model(input_ids=ids_1N, decoder_input_ids=ids_1N, use_cache=False).logits
        return answer_logits(self.model, hidden[0]), plain[0]

    def read_plainly(self, prompt_PH: torch.Tensor, example: Encoded) -> torch.Tensor:
        """Logits at the answer's places, by the model's own forward."""
        text = self.lookup(torch.tensor(example.input_ids, device=self.device))
        decoded = [*self._start, *example.answer_ids[example.gold][:-1]]
        logits: torch.Tensor = self.model(
            inputs_embeds=torch.cat([prompt_PH.to(text.dtype), text])[None],
            decoder_input_ids=torch.tensor([decoded], device=self.device),
            use_cache=False,
        ).logits[0]
        return logits[len(self._start) - 1 :]
