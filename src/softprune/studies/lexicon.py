"""Which vocabulary items prompts lie near, and how many of them prompts of several tasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Final

import torch

from softprune.interpret.displacement import movement, norm_rms, persisting
from softprune.interpret.neighbours import MEASURES, anisotropy, nearest, table_mean
from softprune.interpret.vocabulary import Vocabulary
from softprune.models.base import Backbone
from softprune.prompts.initialization import generator

WIDE: Final = 1_000_003  # between the seeds of draws for different tasks


@dataclass(frozen=True)
class Lexicon:
    """A backbone's vocabulary as prompts are compared with it: by its input embeddings, as the model reads them."""

    backbone: Backbone
    k: int  # neighbours that count

    @cached_property
    def table_VH(self) -> torch.Tensor:
        """The input embeddings."""
        return self.backbone.embeddings_VH().cpu()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Their names."""
        return Vocabulary(self.backbone.tokenizer, self.backbone.vocabulary)

    @cached_property
    def mean_H(self) -> torch.Tensor:
        """Their mean, over words and signs."""
        return table_mean(self.table_VH, self.vocabulary.pool)

    def near(self, prompt_PH: torch.Tensor, measure: str = "centred") -> list[list[str]]:
        """The k nearest words of each token, nearest first; fewer where a token has none."""
        mean_H = self.mean_H if measure == "centred" else None
        ids_PK = nearest(prompt_PH, self.table_VH, self.k, measure, self.vocabulary.pool, mean_H=mean_H).ids_PK
        return [self.vocabulary.shown_all([i for i in row if i >= 0]) for row in ids_PK.tolist()]

    def describe(self) -> dict[str, Any]:
        """Facts of the table, as JSON holds them."""
        likeness = anisotropy(self.table_VH, self.vocabulary.pool)
        return {"raw": likeness.raw, "centred": likeness.centred, "items": len(self.vocabulary.pool)}

    def describe_run(self, start_PH: torch.Tensor, end_PH: torch.Tensor) -> dict[str, Any]:
        """What became of a prompt, as JSON holds it: neighbours by measure, and how far each token went.

        Distances are in lengths of a typical embedding.
        """
        moved = movement(start_PH, end_PH, norm_rms(self.table_VH))
        return {
            "start": {name: self.near(start_PH, name) for name in MEASURES},
            "end": {name: self.near(end_PH, name) for name in MEASURES},
            "moved": moved.relative_P.tolist(),
            "cosine": moved.cosine_P.tolist(),
        }

    def by_chance(self, lengths: Mapping[str, torch.Tensor], draws: int) -> list[dict[str, list[str]]]:
        """Words near random prompts: by draw and task, those near vectors of even direction.

        `lengths` are by task the norms `[P]` of its prompt's tokens.
        """
        words_by_draw = []
        for draw in range(draws):
            words = {}
            for place, (task, norms_P) in enumerate(lengths.items()):
                shape = (len(norms_P), self.table_VH.shape[1])
                drawn_PH = torch.randn(shape, generator=generator(draw + WIDE * place))
                words[task] = flat(self.near(drawn_PH / drawn_PH.norm(dim=-1, keepdim=True) * norms_P[:, None]))
            words_by_draw.append(words)
        return words_by_draw


def flat(rows: Sequence[Sequence[str]]) -> list[str]:
    """All words of a prompt's tokens, each once, in their order."""
    return list(dict.fromkeys(word for row in rows for word in row))


def shared(words: Mapping[str, Sequence[str]], least: int) -> list[str]:
    """Words that are near the prompts of as many tasks at least."""
    return [each.word for each in persisting(words, least)]


def mean_shared(several: Sequence[Mapping[str, Sequence[str]]], least: int) -> float:
    """How many words are shared, in the mean over several sets of a prompt a task."""
    return fmean(len(shared(words, least)) for words in several)
