"""Where a prompt starts: from embeddings that are handed in, never from a model.

Five ways: vectors of sampled vocabulary (the paper's), random uniform, a text, the class labels, another prompt.
Whatever doesn't fit the asked length is said in `Initial.notes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from softprune.errors import SoftpruneError

# Lester et al. (2021, section 3.2) sample from the 5,000 most common words; vocabularies list common words first.
COMMON = 5_000


Vectors = Callable[[Sequence[int]], torch.Tensor]
"""Gives the input embeddings `[len(ids), H]` of some ids: a few rows of a table that may be large."""


@dataclass(frozen=True, slots=True)
class Initial:
    """A prompt's first values.

    Attributes:
        vectors_PH: `[P, H]`.
        words: what each token started as, for the reader; "" where it started as nothing readable.
        notes: what was repeated, cut or filled to reach P.
    """

    vectors_PH: torch.Tensor
    words: tuple[str, ...]
    notes: tuple[str, ...] = ()


def generator(seed: int) -> torch.Generator:
    """A CPU generator, so that a prompt starts alike on every device."""
    return torch.Generator().manual_seed(seed)


def from_vocabulary(
    vectors_of: Vectors, ids: Sequence[int], tokens: int, seed: int, words: Sequence[str] = ()
) -> Initial:
    """Vectors of sampled vocabulary, without repetition.

    Args:
        vectors_of: input embeddings of ids.
        ids: the vocabulary to sample from, common words first; the first 5,000 count.
        tokens: P.
        seed: of the sample.
        words: readable form of each of `ids`.
    """
    pool = list(ids[:COMMON])
    if len(pool) < tokens:
        raise SoftpruneError(
            f"a vocabulary of at least {tokens} words to start the prompt from",
            f"{len(pool)}",
            "ask for fewer prompt tokens, or prompt.init=uniform",
        )
    picked = torch.randperm(len(pool), generator=generator(seed))[:tokens].tolist()
    chosen = [pool[i] for i in picked]
    return Initial(vectors_of(chosen).clone(), tuple(words[i] for i in picked) if words else ("",) * tokens)


def from_uniform(hidden: int, tokens: int, bound: float, seed: int) -> Initial:
    """Numbers from -bound to bound."""
    vectors = (torch.rand(tokens, hidden, generator=generator(seed)) * 2 - 1) * bound
    return Initial(vectors, ("",) * tokens)


def from_text(vectors_of: Vectors, ids: Sequence[int], words: Sequence[str], filler: Initial) -> Initial:
    """The text's tokens. A longer text is cut at P, a shorter one filled with `filler`'s tail; both are said.

    Args:
        vectors_of: input embeddings of ids.
        ids: the text's token ids.
        words: their readable forms.
        filler: a prompt of the wanted length.
    """
    tokens = filler.vectors_PH.shape[0]
    taken = min(len(ids), tokens)
    vectors = filler.vectors_PH.clone()
    vectors[:taken] = vectors_of(ids[:taken]).to(vectors)
    notes: tuple[str, ...] = ()
    if len(ids) > tokens:
        notes = (f"the initial text has {len(ids)} tokens: the last {len(ids) - tokens} were left out",)
    elif len(ids) < tokens:
        notes = (f"the initial text has {len(ids)} tokens: the other {tokens - len(ids)} start as sampled vocabulary",)
    return Initial(vectors, (*words[:taken], *filler.words[taken:]), notes)


def from_labels(vectors_of: Vectors, labels: Sequence[tuple[str, Sequence[int]]], filler: Initial) -> Initial:
    """One token a class label, the mean of its pieces' vectors (Lester et al. 2021, section 3.2), then filler.

    Args:
        vectors_of: input embeddings of ids.
        labels: text and token ids of each class label.
        filler: a prompt of the wanted length.
    """
    tokens = filler.vectors_PH.shape[0]
    vectors = filler.vectors_PH.clone()
    taken = min(len(labels), tokens)
    for p, (_, ids) in enumerate(labels[:taken]):
        vectors[p] = vectors_of(ids).mean(0).to(vectors)
    notes: tuple[str, ...] = ()
    if len(labels) > tokens:
        notes = (
            f"{len(labels)} class labels for {tokens} prompt tokens: the last {len(labels) - tokens} were left out",
        )
    elif len(labels) < tokens:
        notes = (f"{len(labels)} class labels: the other {tokens - len(labels)} tokens start as sampled vocabulary",)
    return Initial(vectors, (*(text for text, _ in labels[:taken]), *filler.words[taken:]), notes)


def check_fits(source_QH: torch.Tensor, hidden: int, name: str) -> None:
    """Hold a prompt to a backbone's embedding size, and its numbers to finite ones.

    Raises:
        SoftpruneError: when it was made for another size, or holds NaN or infinity.
    """
    if source_QH.dim() != 2 or source_QH.shape[1] != hidden:
        raise SoftpruneError(
            f"a prompt [P, {hidden}] for this backbone",
            f"{list(source_QH.shape)} in {name}",
            "choose a prompt that was trained on a backbone of this embedding size",
        )
    if not torch.isfinite(source_QH).all():
        raise SoftpruneError("finite numbers in a prompt", f"NaN or infinity in {name}", "choose another")


def from_prompt(source_QH: torch.Tensor, filler: Initial, name: str) -> Initial:
    """Another prompt's vectors, cut or filled to P.

    Raises:
        SoftpruneError: when it was made for another embedding size.
    """
    tokens, hidden = filler.vectors_PH.shape
    check_fits(source_QH, hidden, name)
    taken = min(tokens, source_QH.shape[0])
    vectors = filler.vectors_PH.clone()
    vectors[:taken] = source_QH[:taken].to(vectors)
    notes: tuple[str, ...] = ()
    if source_QH.shape[0] != tokens:
        what = (
            f"its last {source_QH.shape[0] - tokens} tokens were left out"
            if source_QH.shape[0] > tokens
            else f"the other {tokens - taken} tokens start as sampled vocabulary"
        )
        notes = (f"{name} holds {source_QH.shape[0]} tokens, the prompt has {tokens}: {what}",)
    return Initial(vectors, (*(f"{name}[{p}]" for p in range(taken)), *filler.words[taken:]), notes)
