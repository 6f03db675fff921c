"""Classification tasks made from raw text: what teaches a small model that words in front of a text decide the answer.

No labels are read. A *virtual* task cuts the teacher's embedding space into k cells along a few random directions and
names each cell with a word; its prefix is a row of soft vectors, trained with the model and thrown away afterwards. A
*listed* task names k words in its prefix; the answer is the one that the teacher finds nearest to the text.

Axes: N texts, B rows, E teacher width, D whitened width, W words, C virtual tasks, K cells of a task, M soft tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

FITTED_ON = 6_000  # texts at most that place a virtual task's cells
NEAR = 20  # a listed task offers one of the text's so many nearest words


@dataclass(frozen=True, slots=True)
class Asked:
    """One batch of steering tasks.

    Attributes:
        task: which virtual task each row belongs to, [B]; None for listed ones.
        options: word indices, [B, K], -1 where a task has fewer.
        gold: position of the answer among the options, [B].
    """

    task: Tensor | None
    options: Tensor
    gold: Tensor

    @property
    def answers(self) -> list[int]:
        """Word index of each row's answer."""
        found: list[int] = self.options.gather(1, self.gold[:, None])[:, 0].tolist()
        return found


class Whitening:
    """The teacher's D leading principal components, each scaled to unit variance.

    A question's kind moves the teacher's embedding little, its topic much: cells in this space ask for both.
    """

    def __init__(self, embeddings_NE: Tensor, dims: int) -> None:
        self.mean = embeddings_NE.mean(0)
        centred = embeddings_NE - self.mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        self.axes = vectors.flip(1)[:, :dims] / values.flip(0)[:dims].sqrt()

    def __call__(self, embeddings_NE: Tensor) -> Tensor:
        """[N, D]."""
        place = embeddings_NE.device
        white: Tensor = (embeddings_NE - self.mean.to(place)) @ self.axes.to(place)
        return white


class Ground:
    """Texts that virtual tasks are about: their whitened space, and some of them to place cells by.

    Args:
        embeddings_NE: teacher embeddings of the texts.
        dims: D.
        seed: of the sample.
    """

    def __init__(self, embeddings_NE: Tensor, dims: int, seed: int) -> None:
        self.whitening = Whitening(embeddings_NE, dims)
        count = min(FITTED_ON, len(embeddings_NE))
        some = np.random.default_rng([seed, 1]).choice(len(embeddings_NE), count, replace=False)
        self.sample = embeddings_NE[torch.from_numpy(some)]


class Steering:
    """Draws steering tasks for texts whose teacher embeddings are known.

    Args:
        embeddings_NE: teacher embeddings of the training texts.
        words_WE: teacher embeddings of the answer words.
        settings: `virtual` (C), `life`, `dims` (D), `cells` (K at most), `directions` and `questions` of the recipe.
        seed: of the virtual tasks.
        questions_N: which texts are questions. A share `questions` of the virtual tasks cuts the space of these alone,
            since what tells one question from another is little beside what tells a question from a review.
    """

    axes_CDR: Tensor
    centres_CKR: Tensor
    options_CK: Tensor

    def __init__(
        self, embeddings_NE: Tensor, words_WE: Tensor, settings: dict[str, Any], seed: int, questions_N: Tensor
    ) -> None:
        self.settings, self.seed = settings, seed
        self.words_WE = functional.normalize(words_WE - words_WE.mean(0), dim=-1)
        self.mean_E = embeddings_NE.mean(0)
        grounds = [Ground(part, settings["dims"], seed) for part in (embeddings_NE, embeddings_NE[questions_N])]
        self.grounds = dict(zip((False, True), grounds, strict=True))
        self.whitening = self.grounds[False].whitening
        self.asking = round(settings["questions"] * settings["virtual"])  # so many of the virtual tasks
        self.generations = [-1] * settings["virtual"]
        self.turn_to(0)

    def turn_to(self, step: int) -> list[int]:
        """Replace the virtual tasks whose life is over by this step; which ones.

        A model that keeps the same tasks learns their prefixes by heart; one that keeps meeting new ones learns to heed
        a prefix that is still being tuned. Lives are staggered, and a task follows from seed, place and generation.
        """
        count, life = self.settings["virtual"], self.settings["life"]
        due = [(step + place * life // count) // life for place in range(count)]
        renewed = [place for place in range(count) if due[place] != self.generations[place]]
        made = {}
        for place in renewed:
            rng = np.random.default_rng([self.seed, 2, place, due[place]])
            made[place] = self._virtual(self.grounds[place < self.asking], rng, named=bool(rng.random() < 0.5))
        if len(made) == count:
            columns = [torch.stack(column) for column in zip(*made.values(), strict=True)]
            self.axes_CDR, self.centres_CKR, self.options_CK = columns
        else:
            for place, task in made.items():
                self.axes_CDR[place], self.centres_CKR[place], self.options_CK[place] = task
        self.generations = due
        return renewed

    def virtual(self, embeddings_BE: Tensor, rng: np.random.Generator, questions: bool = False) -> Asked:
        """A random virtual task for each row: of those about questions alone, or of the others."""
        first, last = (0, self.asking) if questions else (self.asking, len(self.options_CK))
        task = torch.from_numpy(rng.integers(first, last, size=len(embeddings_BE)))
        return Asked(task, self.options_CK[task], self._cell(self.grounds[questions], embeddings_BE, task))

    def listed(self, embeddings_BE: Tensor, rng: np.random.Generator) -> Asked:
        """K words for each row, one of them near to its text."""
        near_BW = functional.normalize(embeddings_BE - self.mean_E, dim=-1) @ self.words_WE.T
        rows, count = len(embeddings_BE), int(rng.integers(2, self.settings["cells"] + 1))
        options = torch.from_numpy(rng.integers(near_BW.shape[1], size=(rows, count)))
        picked = torch.from_numpy(rng.integers(NEAR, size=(rows, 1)))
        options[:, :1] = near_BW.topk(NEAR).indices.gather(1, picked)
        order = torch.from_numpy(rng.permuted(np.tile(np.arange(count), (rows, 1)), axis=1))
        options = options.gather(1, order)
        return Asked(None, options, near_BW.gather(1, options).argmax(1))

    def _cell(self, ground: Ground, embeddings_BE: Tensor, task: Tensor) -> Tensor:
        along_BR = torch.einsum("bd,bdr->br", ground.whitening(embeddings_BE), self.axes_CDR[task])
        distances = (along_BR[:, None] - self.centres_CKR[task]).square().sum(-1)
        return distances.argmin(1)  # a cell that a task doesn't have is infinitely far

    def _virtual(self, ground: Ground, rng: np.random.Generator, named: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Directions [D, R], cell centres [K, R] and words [K] of a task; `named` cells bear words that are near."""
        dims, most = self.settings["dims"], self.settings["directions"]
        cells, directions = int(rng.integers(2, self.settings["cells"] + 1)), int(rng.integers(1, most + 1))
        axes, _ = np.linalg.qr(rng.standard_normal((dims, directions)))
        axes_DR = torch.zeros(dims, most)
        axes_DR[:, :directions] = torch.from_numpy(axes).float()
        sample = ground.sample
        along = ground.whitening(sample) @ axes_DR
        centres = along[torch.from_numpy(rng.choice(len(along), cells, replace=False))]
        for _ in range(5):  # of Lloyd's algorithm: no cell stays all but empty
            cell = torch.cdist(along, centres).argmin(1)
            centres = torch.stack([along[cell == k].mean(0) if (cell == k).any() else along[k] for k in range(cells)])
        options = torch.from_numpy(rng.choice(len(self.words_WE), cells, replace=False))
        if named:
            cell, taken = torch.cdist(along, centres).argmin(1), set[int]()
            for k in range(cells):
                mean = sample[cell == k].mean(0) if (cell == k).any() else sample[k]
                ranked = ((mean - self.mean_E) @ self.words_WE.T).argsort(descending=True).tolist()
                word = next(word for word in ranked if word not in taken)
                options[k] = word
                taken.add(word)
        missing = self.settings["cells"] - cells
        centres = torch.cat([centres, torch.full((missing, most), float("inf"))])
        return axes_DR, centres, torch.cat([options, torch.full((missing,), -1)])
