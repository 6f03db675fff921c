"""Where a prompt starts: from embeddings that are handed in, never from a model.

Five ways: vectors of sampled vocabulary (the paper's), random uniform, a text, the class labels, another prompt.
Whatever doesn't fit the prompt's length is said in `Initial.notes`.
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
    """A prompt's first values."""

    vectors_PH: torch.Tensor
    words: tuple[str, ...]  # what each token started as, for the reader; "" where it started as nothing readable
    notes: tuple[str, ...] = ()  # what was repeated, cut or filled to reach P


def generator(seed: int) -> torch.Generator:
    """A CPU generator, so that a prompt starts alike on every device."""
    return torch.Generator().manual_seed(seed)


def from_vocabulary(
    vectors_of: Vectors, ids: Sequence[int], tokens: int, seed: int, words: Sequence[str] = ()
) -> Initial:
    """Vectors of sampled vocabulary, without repetition.

    Args:
        vectors_of: input embeddings of ids.
        ids: the vocabulary, common words first; the first 5,000 count.
        tokens: P.
        seed: of the sample.
        words: readable form of each of `ids`.

    Raises:
        SoftpruneError: for a vocabulary of fewer words than P.
    """
    pool = list(ids[:COMMON])
    if len(pool) < tokens:
        expected = f"a vocabulary of at least {tokens} words to start the prompt from"
        raise SoftpruneError(expected, f"{len(pool)}", "ask for fewer prompt tokens, or prompt.init=uniform")
    picked = torch.randperm(len(pool), generator=generator(seed))[:tokens].tolist()
    # A copy: training changes these vectors, and the model's own must stay.
    vectors_PH = vectors_of([pool[i] for i in picked]).clone()
    return Initial(vectors_PH, tuple(words[i] for i in picked) if words else ("",) * tokens)


def from_uniform(hidden: int, tokens: int, bound: float, seed: int) -> Initial:
    """Numbers from -bound to bound."""
    vectors_PH = (torch.rand(tokens, hidden, generator=generator(seed)) * 2 - 1) * bound
    return Initial(vectors_PH, ("",) * tokens)


def from_text(vectors_of: Vectors, ids: Sequence[int], words: Sequence[str], filler: Initial) -> Initial:
    """The text's token ids, cut at P or filled up with `filler`, a prompt of P tokens; `words` are readable forms."""
    first_QH = vectors_of(ids[: len(filler.words)])
    return _fit(first_QH, len(ids), words, filler, f"the initial text has {len(ids)} tokens")


def from_labels(vectors_of: Vectors, labels: Sequence[tuple[str, Sequence[int]]], filler: Initial) -> Initial:
    """One token a class label (text, token ids), the mean of its pieces' vectors (Lester et al. 2021, section 3.2)."""
    first_QH = torch.stack([vectors_of(ids).mean(0) for _, ids in labels[: len(filler.words)]])
    return _fit(first_QH, len(labels), [text for text, _ in labels], filler, f"{len(labels)} class labels")


def from_prompt(source_QH: torch.Tensor, filler: Initial, name: str) -> Initial:
    """Another prompt's vectors, cut or filled to P.

    Raises:
        SoftpruneError: as of `check_fits`.
    """
    check_fits(source_QH, filler.vectors_PH.shape[1], name)
    words = [f"{name}[{p}]" for p in range(len(source_QH))]
    return _fit(source_QH[: len(filler.words)], len(source_QH), words, filler, f"{name} holds {len(source_QH)} tokens")


def check_fits(source_QH: torch.Tensor, hidden: int, name: str) -> None:
    """Hold a prompt to a backbone's embedding size, and its numbers to finite ones.

    Raises:
        SoftpruneError: when it was made for another size, or holds NaN or infinity.
    """
    if source_QH.dim() != 2 or source_QH.shape[1] != hidden:
        found = f"{list(source_QH.shape)} in {name}"
        do = "choose a prompt that was trained on a backbone of this embedding size"
        raise SoftpruneError(f"a prompt [P, {hidden}] for this backbone", found, do)
    if not torch.isfinite(source_QH).all():
        raise SoftpruneError("finite numbers in a prompt", f"NaN or infinity in {name}", "choose another")


def _fit(first_QH: torch.Tensor, length: int, words: Sequence[str], filler: Initial, source: str) -> Initial:
    """Vectors of Q = min(length, P) tokens, then `filler`'s; where `length` isn't P, a note says what was done."""
    tokens = len(filler.words)
    vectors_PH = filler.vectors_PH.clone()
    vectors_PH[: len(first_QH)] = first_QH.to(vectors_PH)  # a file may hold another dtype than the backbone's prompts
    notes: tuple[str, ...] = ()
    if length != tokens:
        change = f"the other {tokens - length} start as sampled vocabulary"
        if length > tokens:
            change = f"the last {length - tokens} were left out"
        notes = (f"{source}, the prompt has {tokens} tokens: {change}",)
    return Initial(vectors_PH, (*words[:tokens], *filler.words[len(first_QH) :]), notes)
