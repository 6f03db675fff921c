"""Sentence encoders: all-MiniLM and similar ones. Answers are texts too, scored by cosine to the input's embedding."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F

from softprune.errors import SoftpruneError
from softprune.models.base import AdapterContext, Backbone, BackboneInfo, tile
from softprune.models.fused.bert import FrozenBert, suits
from softprune.models.pooling import Head
from softprune.models.tokenization import Tokenization
from softprune.types import Batch, Encoded

TEMPERATURE = 0.05
"""Cosines are divided by it, as in SimCSE (Gao et al. 2021), so that a softmax over them isn't nearly flat."""

CACHED_ANSWERS = 4_096
"""Answers whose embeddings are kept: enough for any fixed set, and bounded where answers change from row to row."""


class SentenceBackbone(Backbone):
    """An embedding encoder and what follows it (pooling, dense layers, normalisation), on its device.

    Answer embeddings carry no prompt; each is computed once and kept.
    """

    family = "sentence"
    default_loss = "rank"

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo, head: Head, lead: str = "") -> None:
        super().__init__(model, tokenizer, info)
        self.lead = lead  # what the model wants in front of every text, words of its own configuration
        self.head = head.requires_grad_(False).eval()
        self.fused = FrozenBert(model) if suits(model) else None
        self._answers: dict[tuple[int, ...], torch.Tensor] = {}
        self._answerer: SentenceBackbone | None = None
        first = tokenizer("a")["input_ids"][0]
        opens_with_special = first != tokenizer.unk_token_id and first in tokenizer.all_special_ids
        self.leading = int(opens_with_special)  # type: ignore[misc]

    def tokenization(self) -> Tokenization:
        """Nothing fills the answer slot; an answer is tokenised as a text of its own."""
        return Tokenization(
            self.tokenizer, "", lambda text: tuple(self.tokenizer(self.lead + text)["input_ids"]), lead=self.lead
        )

    def embed(self, prompts_RPH: torch.Tensor, ids_BN: torch.Tensor, mask_BN: torch.Tensor) -> torch.Tensor:
        """Sentence embeddings `[R, D]` of the inputs behind the prompts; pooling reads prompt and text alike."""
        embeds_RLH, mask_RL = self.combine(prompts_RPH, ids_BN, mask_BN)
        embedding: torch.Tensor = self.head(self.read_encoder(embeds_RLH, mask_RL), mask_RL)
        return embedding

    def answer_sums(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Log-softmax over the answers of cosine / 0.05."""
        rows = prompts_RPH.shape[0]
        texts_RD = self.read_softly(prompts_RPH, batch)
        answers_RAD = tile(self._answer_embeddings(batch), rows)
        cosine_RA = F.cosine_similarity(texts_RD[:, None].to(answers_RAD.dtype), answers_RAD, dim=-1)
        exists_RA = tile(batch.answer_mask.any(-1), rows)
        logits_RA = (cosine_RA / TEMPERATURE).masked_fill(~exists_RA, float("-inf"))
        return F.log_softmax(logits_RA, dim=-1)

    def answer_scores(self, sums_RA: torch.Tensor, batch: Batch, score: str) -> torch.Tensor:
        """Cosines have no tokens to average over: `sum` and `mean` are the same."""
        return sums_RA

    def check_loss(self, loss: str) -> str:
        """Only `rank` is defined: a cosine is no likelihood of tokens."""
        if loss == "likelihood":
            raise SoftpruneError(
                "tuning.loss of rank (or auto) for a sentence backbone",
                "likelihood",
                "set tuning.loss=rank: cosines are no token likelihoods",
            )
        return self.default_loss

    def keep_answers(self, texts: Sequence[str] | None) -> None:
        """Embed answers as the model is now, whatever is trained in it afterwards."""
        if texts is None:  # every example has answers of its own, unknown yet: a copy of the model stays
            self._answerer = deepcopy(self)
            return
        for ids in map(self.tokenization().answer_ids, texts):
            self._answers[ids] = self._embed_answer(ids)

    @torch.no_grad()
    def _answer_embeddings(self, batch: Batch) -> torch.Tensor:
        """`[B, A, D]` in the prompts' dtype; zeros where an answer doesn't exist."""
        lengths, answers = batch.answer_mask.sum(-1).flatten().tolist(), batch.answer_ids.flatten(0, 1).tolist()
        keys = [tuple(ids[:length]) for ids, length in zip(answers, lengths, strict=True)]  # () where there is none
        # Sorted, so that which answers are forgotten first doesn't depend on hashes.
        for ids in sorted(set(keys) - {()} - self._answers.keys()):
            self._answers[ids] = self._embed_answer(ids)
        size = next(iter(self._answers.values())).shape[0]
        nothing = torch.zeros(size, dtype=self.prompt_dtype, device=self.device)
        embeddings = torch.stack([self._answers.get(key, nothing) for key in keys]).view(len(batch), -1, size)
        for oldest in list(self._answers)[: max(0, len(self._answers) - CACHED_ANSWERS)]:
            del self._answers[oldest]
        return embeddings

    def _embed_answer(self, ids: tuple[int, ...]) -> torch.Tensor:
        # An answer first met while scoring may be part of a training step later: autograd refuses inference tensors.
        with torch.inference_mode(False), torch.no_grad(), self.reading_as(AdapterContext()):
            tokens = torch.tensor([ids], device=self.device)
            nothing = torch.zeros(1, 0, self.info.hidden, device=self.device)
            return (self._answerer or self).embed(nothing, tokens, torch.ones_like(tokens))[0].to(self.prompt_dtype)

    def read_ids(self, ids_1N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states of tokens, given as embeddings and given as ids."""
        ours = self.read_encoder(self.lookup(ids_1N), torch.ones_like(ids_1N))
        return ours, self.model(input_ids=ids_1N).last_hidden_state

    def read_softly(self, prompts_RPH: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Embeddings `[R, D]`: a sentence model's answers say nothing of the vocabulary."""
        return self.embed(self.add_routed(prompts_RPH, batch), batch.input_ids, batch.input_mask)

    def read_plainly(self, prompt_PH: torch.Tensor, example: Encoded) -> torch.Tensor:
        """The text's embedding `[D]`, of the encoder's own forward."""
        text = self.lookup(torch.tensor(example.input_ids, device=self.device))
        embeds = torch.cat([text[: self.leading], prompt_PH.to(text.dtype), text[self.leading :]])[None]
        hidden = self.model(inputs_embeds=embeds).last_hidden_state.to(self.device)
        embedding: torch.Tensor = self.head(hidden, torch.ones(embeds.shape[:2], dtype=torch.long, device=self.device))
        return embedding[0]
