"""Backbones that write text: which tokens start and end it, and greedy decoding with transformers' own generation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from softprune.errors import SoftpruneError
from softprune.models.base import Backbone, BackboneInfo
from softprune.models.log_probs import TokenPredictions
from softprune.models.tokenization import ids_behind
from softprune.types import Batch

REREAD = ("bamba", "falcon_h1", "minimax", "nemotron_h", "rwkv", "switch_transformers")
"""Model types whose generation in transformers 5.23 doesn't go on from vectors, or reads padding in front of a text.
For each token that is written, their whole text is read again, as scores read it."""

_TOKEN_NAMES = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


class GenerativeBackbone(Backbone):
    """What causal and encoder-decoder models share."""

    default_loss = "likelihood"

    def __init__(self, model: Any, tokenizer: Any, info: BackboneInfo) -> None:
        super().__init__(model, tokenizer, info)
        released = model.generation_config
        check_token_ids(released)
        # What a release asks of its generation (beams, least lengths, forbidden repeats) is forgotten: greedy is
        # greedy, the loss and the text are of one model, and a text is the same in a batch as alone.
        model.generation_config = GenerationConfig(**{name: getattr(released, name) for name in _TOKEN_NAMES})

    @abstractmethod
    def predict_tokens(
        self, prompts_KPH: torch.Tensor, batch: Batch, counts: Sequence[int] | None = None
    ) -> TokenPredictions:
        """What is said of every token of the answers, behind prompts that rows share; `counts` as in `shared_sums`."""

    def stated_ids(self, name: str) -> list[int]:
        """The tokens that the model states under a name such as `eos_token_id`, in its generation's settings first."""
        for config in (self.model.generation_config, self.model.config):
            value = getattr(config, name, None)
            values = value if isinstance(value, list | tuple) else [value]
            # Configurations hold defaults of other vocabularies, for which the table has no row.
            ids = [int(each) for each in values if each is not None and 0 <= each < self.vocabulary]
            if ids:
                return ids
        return []

    def end_ids(self) -> list[int]:
        """The tokens that end a text: the tokenizer's, then the model's. Written texts are trained with the first.

        Where neither has one, the last special token that the tokenizer appends to a text.
        """
        own = self.tokenizer.eos_token_id
        ends = self.stated_ids("eos_token_id")
        if own is not None and own < self.vocabulary:
            ends = [int(own), *(end for end in ends if end != own)]
        return ends or [end for end in ids_behind(self.tokenizer) if end < self.vocabulary][-1:]

    @contextmanager
    def generating(self) -> Iterator[None]:
        """No gradients, and eval mode: in train mode transformers would go without its cache of keys and values."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(training)

    def continue_greedily(self, max_new_tokens: int, **inputs: Any) -> torch.Tensor:
        """Token ids `[B, n]` of transformers' greedy generation."""
        tokens: torch.Tensor = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self.pad_id,
            eos_token_id=self.end_ids() or None,
        )
        return tokens

    def has_ended(self, tokens_Bn: torch.Tensor) -> bool:
        """Whether every text has an end in it."""
        ends = torch.tensor(self.end_ids(), device=tokens_Bn.device)
        return bool(torch.isin(tokens_Bn, ends).any(1).all())

    def decode_generated(self, tokens_Bn: torch.Tensor) -> list[str]:
        """The texts of generated tokens, each up to its end."""
        ends = set(self.end_ids())
        whole = []
        for row in tokens_Bn.tolist():
            length = next((at for at, token in enumerate(row) if token in ends), len(row))
            whole.append(row[:length])
        return [text.strip() for text in self.tokenizer.batch_decode(whole, skip_special_tokens=True)]


def check_token_ids(generation: Any) -> None:
    """Refuse a generation_config.json whose special tokens aren't token ids, before a text is generated."""
    for name in _TOKEN_NAMES:
        value = getattr(generation, name, None)
        ids = value if isinstance(value, list) else [value]
        if not all(one is None or (isinstance(one, int) and not isinstance(one, bool)) for one in ids):
            raise SoftpruneError(
                f"a token id for {name} in generation_config.json (or config.json)",
                repr(value),
                "copy or download generation_config.json again",
            )
