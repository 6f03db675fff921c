"""Encoder-decoder backbones: T5, mT5, BART. The prompt goes to the encoder, the answer is what the decoder says."""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from softprune.errors import SoftpruneError
from softprune.models.architectures import answer_logits
from softprune.models.base import Backbone, BackboneInfo, tile
from softprune.models.fused.layers import additive_mask
from softprune.models.fused.t5 import FrozenT5, suits
from softprune.models.load_check import check_reading
from softprune.models.log_probs import scatter_sums, token_log_probs
from softprune.models.probe import Probe
from softprune.models.tokenization import Tokenization, ids_behind
from softprune.types import Batch

RELATIVE = ("t5", "mt5")  # model types whose decoders know positions by their distances alone


class Seq2SeqBackbone(Backbone):
    """An encoder-decoder model; answers are scored with their end-of-sequence token."""

    family = "seq2seq"
    default_loss = "likelihood"

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo) -> None:
        super().__init__(model, tokenizer, info)
        self._start = self._decoder_start()
        self._generate_plainly()
        self._fast = FrozenT5(model) if suits(model) else None
        check_reading(self)

    @property
    def trunk(self) -> Any:
        """The decoder: a prefix precedes its own attention, not that to the encoder."""
        return self.model.get_decoder()

    def tokenization(self) -> Tokenization:
        """Nothing fills the answer slot; an answer is what the tokenizer makes of a target text."""
        return Tokenization(self.tokenizer, "", self._answer_ids)

    def answer_sums(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Encode each row once, then decode all of its answers against that encoding."""
        rows = prompts_RPH.shape[0]
        encoded = self.combine(prompts_RPH, batch.input_ids, batch.input_mask)
        memory_RLH = self._encode(encoded.embeds_RLH, encoded.mask_RL)
        answers = batch.answer_ids.shape[1]
        ids_RAT, mask_RAT = tile(batch.answer_ids, rows), tile(batch.answer_mask, rows)
        inputs_RAT = self._decoder_inputs(ids_RAT.flatten(0, 1)).unflatten(0, (rows, answers))
        # Behind a prefix it matters how far from it an answer is.
        packs = self.model.config.model_type in RELATIVE and not self.adapter.has_prefix
        read = self._decode_packed if packs else self._decode_apart
        predicted_RATH = read(inputs_RAT, memory_RLH, encoded.mask_RL)[:, :, len(self._start) - 1 :]
        row, answer, token = torch.nonzero(mask_RAT, as_tuple=True)
        # Nothing of an answer is read yet where its first token is predicted: all answers share that place.
        after = torch.where(token == 0, 0, answer)
        place_U, which_M = ((row * answers + after) * mask_RAT.shape[2] + token).unique(return_inverse=True)
        logits_UV = answer_logits(self.model, predicted_RATH.flatten(0, 2)[place_U])
        return scatter_sums(token_log_probs(logits_UV, which_M, ids_RAT[mask_RAT]), mask_RAT)

    def generate(self, prompts_BPH: torch.Tensor, batch: Batch, max_new_tokens: int) -> list[str]:
        """Greedy decoding with transformers' own generation."""
        with self.generating():
            prompts = prompts_BPH.expand(len(batch), *prompts_BPH.shape[-2:])
            encoded = self.combine(prompts, batch.input_ids, batch.input_mask)
            memory = self.model.get_encoder()(
                inputs_embeds=encoded.embeds_RLH, attention_mask=encoded.mask_RL
            ).last_hidden_state
            start = torch.tensor(self._start, device=self.device).expand(len(batch), -1)
            tokens = self.model.generate(
                decoder_input_ids=start,
                encoder_outputs=BaseModelOutput(last_hidden_state=memory),
                attention_mask=encoded.mask_RL,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.pad_id,
                eos_token_id=self.end_ids() or None,
            )
        return self.decode_generated(tokens[:, len(self._start) :].tolist())

    def _decode_packed(self, ids_RAT: torch.Tensor, memory_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """Hidden states `[R, A, T, H]`, all answers of a row behind one another in one decoder sequence.

        No answer sees another, and only distances within an answer count. So the memory's keys and values are
        computed once a row, not once an answer.
        """
        _, answers, width = ids_RAT.shape
        sees = torch.ones(width, width, dtype=torch.bool, device=ids_RAT.device).tril()
        hidden = self._decode(ids_RAT.flatten(1), memory_RLH, mask_RL, ~torch.block_diag(*[sees] * answers))
        apart: torch.Tensor = hidden.unflatten(1, (answers, width))
        return apart

    def _decode_apart(self, ids_RAT: torch.Tensor, memory_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """The same where positions are absolute (BART): a decoder sequence an answer."""
        rows, answers = ids_RAT.shape[:2]
        memory, mask = (part.repeat_interleave(answers, dim=0) for part in (memory_RLH, mask_RL))
        hidden: torch.Tensor = self._decode(ids_RAT.flatten(0, 1), memory, mask).unflatten(0, (rows, answers))
        return hidden

    def _encode(self, embeds_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """The encoder's last hidden states."""
        if self._fast is not None and not self.adapter.has_weights:
            return self._fast.encode(embeds_RLH, mask_RL)
        encoded = self.model.get_encoder()(inputs_embeds=embeds_RLH, attention_mask=mask_RL)
        memory_RLH: torch.Tensor = encoded.last_hidden_state.to(self.device)
        return memory_RLH

    def _decode(
        self,
        ids_RU: torch.Tensor,
        memory_RLH: torch.Tensor,
        memory_RL: torch.Tensor,
        hides_UU: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The decoder's last hidden states `[R, U, H]`; without `hides_UU` a position sees those before it."""
        rows, length = ids_RU.shape
        if self._fast is not None and not self.adapter.is_active and length < self._fast.most_positions:
            later = torch.ones(length, length, dtype=torch.bool, device=ids_RU.device).triu(1)
            hides_UU = later if hides_UU is None else hides_UU
            return self._fast.decode(self.lookup(ids_RU), hides_UU, memory_RLH, memory_RL)
        mask = None if hides_UU is None else additive_mask(hides_UU, memory_RLH.dtype).expand(rows, 1, -1, -1)
        hidden: torch.Tensor = self.model.get_decoder()(
            input_ids=ids_RU,
            attention_mask=mask,
            encoder_hidden_states=memory_RLH,
            encoder_attention_mask=memory_RL,
            use_cache=False,
        ).last_hidden_state.to(self.device)
        return hidden

    def _decoder_inputs(self, ids_MT: torch.Tensor) -> torch.Tensor:
        """Start tokens, then the answer shifted right by one. Causal attention makes right padding harmless."""
        start = torch.tensor(self._start, device=ids_MT.device).expand(ids_MT.shape[0], -1)
        return torch.cat([start, ids_MT[:, :-1]], dim=1)

    def _target(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text_target=text)["input_ids"]
        return ids

    def _decoder_start(self) -> list[int]:
        """What the decoder is given: its start token and whatever special tokens the tokenizer puts before a target.

        BART's targets open with `<s>`, which is no part of the answer.
        """
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id, self.tokenizer.eos_token_id}
        lead = []
        for token in self._target("a"):
            if token not in special:
                break
            lead.append(token)
        for name in ("decoder_start_token_id", "bos_token_id"):
            ids = self.stated_ids(name)
            if ids:
                return [ids[0], *lead]
        raise SoftpruneError(
            "a model that states the token that its decoder starts with",
            "neither decoder_start_token_id nor bos_token_id in its configuration",
            "add decoder_start_token_id to its config.json",
        )

    def _answer_ids(self, text: str) -> tuple[int, ...]:
        """A target without the special tokens before it and behind it, and its end."""
        ids, behind = self._target(text), len(ids_behind(self.tokenizer, text_target="a"))
        return (*ids[len(self._start) - 1 : len(ids) - behind], *self.end_ids()[:1])

    def drop_fused_layers(self) -> None:
        """Leave out the layers of our own."""
        self._fast = None

    def read_ids(self, ids_1N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of tokens, by encoder, decoder and head apart and by the model's own forward."""
        memory = self._encode(self.lookup(ids_1N), torch.ones_like(ids_1N))
        hidden = self._decode(ids_1N, memory, torch.ones_like(ids_1N))
        plain = self.model(input_ids=ids_1N, decoder_input_ids=ids_1N, use_cache=False).logits
        return answer_logits(self.model, hidden[0]), plain[0]

    def read_plainly(self, prompt_PH: torch.Tensor, probe: Probe) -> torch.Tensor:
        """Logits at the answer's places, by the model's own forward."""
        text = self.lookup(torch.tensor(probe.text, device=self.device))
        decoded = torch.tensor([[*self._start, *probe.answer[:-1]]], device=self.device)
        embeds = torch.cat([prompt_PH.to(text.dtype), text])
        logits: torch.Tensor = self.model(
            inputs_embeds=embeds[None], decoder_input_ids=decoded, use_cache=False
        ).logits[0]
        return logits[len(self._start) - 1 :]
