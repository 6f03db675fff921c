"""What softprune's readings are held to: transformers' own forward of token ids, each text by itself, nothing padded.

Of softprune's code only the names of families are known here. The first tokens behind a leading one stand in for a
soft prompt; a hook on the embedding table lets the loss be differentiated by their vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids: of a text (a leading token included), of its answers, and which of them is right."""

    ids: Ids
    answers: tuple[Ids, ...]
    gold: int


@dataclass(frozen=True, slots=True)
class PlainModel:
    """A transformers model, and what its family needs to be known of it."""

    model: Any
    family: str  # causal, seq2seq, masked or sentence
    prompt: Ids
    leading: int  # tokens before the prompt: 1 or 0
    start: int = 0  # what a decoder starts with
    mask: int = 0  # the token that holds an answer's place

    def place_prompt(self, ids: Ids) -> list[int]:
        """A text's ids with the prompt in them."""
        return [*ids[: self.leading], *self.prompt, *ids[self.leading :]]

    @torch.no_grad()
    def losses(self, texts: Sequence[Text]) -> torch.Tensor:
        """Each text's loss, `[B]` float64."""
        return torch.stack([self._loss(text) for text in texts])

    def gradients(self, texts: Sequence[Text]) -> torch.Tensor:
        """Of each text's loss, by the vectors that the table gives for the prompt, `[B, P, H]`."""
        found = []
        for text in texts:
            with vectors_as_leaf(self.model, self.prompt, self.leading) as leaves:
                loss = self._loss(text)
                found.append(torch.autograd.grad(loss, leaves[0])[0])
        return torch.stack(found).double()

    def _loss(self, text: Text) -> torch.Tensor:
        """Minus the mean log-probability of the right answer's tokens, or cross-entropy over the answers."""
        if self.family in ("causal", "seq2seq"):
            return -_SUMS[self.family](self, text, text.answers[text.gold]) / len(text.answers[text.gold])
        if self.family == "masked":
            sums_A = torch.stack([masked_sum(self, text, answer) for answer in text.answers])
        else:
            sums_A = sentence_cosines(self, text) / 0.05
        return -sums_A.log_softmax(0)[text.gold]

    @torch.no_grad()
    def write(self, text: Text, tokens: int, ends: Sequence[int]) -> Ids:
        """Greedy decoding, the whole text read again for each token."""
        ids, written = self.place_prompt(text.ids), list[int]()
        while len(written) < tokens and not set(written) & set(ends):
            given = {"input_ids": torch.tensor([ids + written])}
            if self.family == "seq2seq":
                decoded = torch.tensor([[self.start, *written]])
                given = {"input_ids": torch.tensor([ids]), "decoder_input_ids": decoded}
            written.append(int(self.model(**given, use_cache=False).logits[0, -1].argmax()))
        return tuple(written)


def sum_at(logits_TV: torch.Tensor, answer: Ids) -> torch.Tensor:
    """Sum of the log-probabilities of an answer's tokens."""
    return logits_TV.double().log_softmax(-1)[torch.arange(len(answer)), list(answer)].sum()


def causal_sum(plain: PlainModel, text: Text, answer: Ids) -> torch.Tensor:
    """The answer follows the text."""
    ids = plain.place_prompt(text.ids)
    logits = plain.model(input_ids=torch.tensor([[*ids, *answer]]), use_cache=False).logits[0]
    return sum_at(logits[len(ids) - 1 : -1], answer)


def seq2seq_sum(plain: PlainModel, text: Text, answer: Ids) -> torch.Tensor:
    """The answer is the decoder's."""
    decoded = torch.tensor([[plain.start, *answer[:-1]]])
    ids = torch.tensor([plain.place_prompt(text.ids)])
    return sum_at(plain.model(input_ids=ids, decoder_input_ids=decoded, use_cache=False).logits[0], answer)


_SUMS: dict[str, Callable[[PlainModel, Text, Ids], torch.Tensor]] = {"causal": causal_sum, "seq2seq": seq2seq_sum}


def masked_sum(plain: PlainModel, text: Text, answer: Ids) -> torch.Tensor:
    """The text's mask is as many as the answer has tokens."""
    ids = plain.place_prompt(text.ids)
    slot = ids.index(plain.mask)
    ids[slot : slot + 1] = [plain.mask] * len(answer)
    logits = plain.model(input_ids=torch.tensor([ids])).logits[0]
    return sum_at(logits[slot : slot + len(answer)], answer)


def sentence_cosines(plain: PlainModel, text: Text) -> torch.Tensor:
    """Cosines `[A]` of mean states; answers are read without the prompt."""

    def embed(ids: Sequence[int]) -> torch.Tensor:
        state: torch.Tensor = plain.model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0].double().mean(0)
        return state

    answers_AD = torch.stack([embed(answer) for answer in text.answers])
    return F.cosine_similarity(embed(plain.place_prompt(text.ids))[None], answers_AD)


@contextmanager
def vectors_as_leaf(model: Any, prompt: Ids, at: int) -> Iterator[list[torch.Tensor]]:
    """Within the block, let the vectors of the prompt's ids be one leaf `[P, H]`, which the list then holds."""
    weight, wanted, leaves = model.get_input_embeddings().weight, torch.tensor(prompt), list[torch.Tensor]()
    end = at + len(prompt)

    def splice(_: nn.Module, given: tuple[Any, ...], looked_up: torch.Tensor) -> torch.Tensor | None:
        if not torch.equal(given[0][0, at:end], wanted):  # a decoder's ids, or an answer's
            return None
        if not leaves:
            leaves.append(looked_up[0, at:end].detach().clone().requires_grad_())
        return torch.cat([looked_up[:, :at], leaves[0][None], looked_up[:, end:]], dim=1)

    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.weight is weight]
    handles = [table.register_forward_hook(splice) for table in tables]
    try:
        yield leaves
    finally:
        for handle in handles:
            handle.remove()
