"""One step's loss: rows that imitate the teacher, rows that are steered, rows that predict words."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from steering import Asked, Steering
from students import Student, Words, pad
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

LEAST = 6  # tokens of a text whose words are predicted
WINDOW = 4_096  # rows of one batch are drawn from so many texts of neighbouring length


@dataclass(frozen=True)
class Texts:
    """Tokenised texts, and what the teacher says of them.

    Attributes:
        rows: token ids of each.
        targets_NE: unit-length teacher embeddings.
        order: indices of the training texts, shortest first.
        asking: those of them that are questions.
        held: number of held-out texts; they come first.
    """

    rows: list[list[int]]
    targets_NE: Tensor
    order: NDArray[np.int64]
    asking: NDArray[np.int64]
    held: int

    def draw(self, rng: np.random.Generator, count: int, least: int = 1, questions: bool = False) -> list[int]:
        """Training texts of similar length, of `least` tokens or more; `questions` alone if asked for."""
        order = self.asking if questions else self.order
        first = bisect_left(order, least, key=lambda index: len(self.rows[index]))
        start = int(rng.integers(first, max(first + 1, len(order) - WINDOW)))
        found: list[int] = rng.choice(order[start : start + WINDOW], count).tolist()
        return found


class Objective(nn.Module):
    """Everything that one step computes, so that accelerate can wrap it as a whole.

    Args:
        student: the model.
        texts: what it reads.
        steering: where steering tasks come from.
        words: what they answer with.
        special: ids of the special tokens, and of "," and ":".
        settings: `training` of the recipe: rows and weights of each part.
        tutor: what the teacher makes of each token, where `weights` names "tokens".
    """

    def __init__(
        self,
        student: Student,
        texts: Texts,
        steering: Steering,
        words: Words,
        special: dict[str, int],
        settings: dict[str, Any],
        tutor: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.student = student
        self.tutor = tutor
        self.texts, self.steering, self.words = texts, steering, words
        self.special, self.settings = special, settings

    @property
    def device(self) -> torch.device:
        """Where the student is."""
        return next(self.student.parameters()).device

    def forward(self, step: int, seed: int, half: bool = False) -> tuple[Tensor, dict[str, float]]:
        """Loss of a step and its parts. Which rows it reads follows from seed and step alone.

        Args:
            step, seed: what the rows are drawn by.
            half: compute in bfloat16. Weights stay float32; autocast would convert at every product instead of once.
        """
        if half:
            found: tuple[Tensor, dict[str, float]] = functional_call(self, self.halved(), (step, seed))
            return found
        rng, rows, weights = np.random.default_rng([seed, step]), self.settings["rows"], self.settings["weights"]
        asking = [bool(rng.random() < self.settings["questions"]) for _ in range(2)]
        parts = self.imitation(self.texts.draw(rng, rows["imitation"], questions=asking[0]))
        steered, right = self.steered(self.texts.draw(rng, rows["steering"], questions=asking[1]), rng, asking[1])
        parts["steering"] = steered
        if rows["language"]:
            chosen = self.texts.draw(rng, rows["language"], least=LEAST)
            parts["language"] = self.student.language(*self.padded(chosen), rng)
        loss = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return loss, {name: value.item() for name, value in parts.items()} | {"right": right.float().mean().item()}

    def halved(self) -> dict[str, Tensor]:
        """All weights in bfloat16; gradients flow back to the float32 ones."""
        return {name: weight.bfloat16() for name, weight in self.named_parameters()}

    def imitation(self, chosen: list[int]) -> dict[str, Tensor]:
        """Distances to the teacher: 1 - cosine, the cosines among the rows, the whitened embeddings, each token."""
        wanted = self.texts.targets_NE[chosen].to(self.device)
        ids, mask = self.padded(chosen)
        found, states = self.student.embed(ids, mask)
        white = self.steering.whitening
        parts = {
            "embedding": 1 - (found * wanted).sum(-1).mean(),
            "similarity": functional.mse_loss(found @ found.T, wanted @ wanted.T),
            "whitened": 1 - functional.cosine_similarity(white(found), white(wanted), dim=-1).mean(),
        }
        if "tokens" in self.settings["weights"]:
            read = mask == 1
            taught = self.tutor(ids, mask)[read]
            parts["tokens"] = (states[read].float() - taught).square().sum() / taught.square().sum()
        return parts

    def steered(self, chosen: list[int], rng: np.random.Generator, questions: bool = False) -> tuple[Tensor, Tensor]:
        """Loss and hits [B] of one kind of steering task."""
        targets = self.texts.targets_NE[chosen]
        if rng.random() < self.settings["listed"]:
            asked = self.steering.listed(targets, rng)
            rows = [self.listing(asked, row) + self.texts.rows[i] for row, i in enumerate(chosen)]
            opening = self.special["opening"]
            rows = [row if opening < 0 else [opening, *(t for t in row if t != opening)] for row in rows]
        else:
            asked = self.steering.virtual(targets, rng, questions)
            rows = [self.texts.rows[i] for i in chosen]
        if rng.random() < 0.5:
            rows = [self.cued(row, rng) for row in rows]
        ids, mask = (part.to(self.device) for part in pad(rows))
        return self.student.steer(asked, ids, mask, self.words)

    def listing(self, asked: Asked, row: int) -> list[int]:
        """Token ids of "word, word, word:"."""
        found: list[int] = []
        for option in asked.options[row].tolist():
            found += [*self.words.rows[option], self.special["comma"]]
        return [*found[:-1], self.special["colon"]]

    def cued(self, row: list[int], rng: np.random.Generator) -> list[int]:
        """The text with "word:" behind it, as templates end, before its closing token."""
        cue = [*self.words.rows[int(rng.integers(len(self.words.rows)))], self.special["colon"]]
        closing = [row[-1]] if row[-1] == self.special["sep"] else []
        return [*row[: len(row) - len(closing)], *cue, *closing]

    def padded(self, chosen: list[int]) -> tuple[Tensor, Tensor]:
        """Ids and mask [B, T] of texts."""
        ids, mask = pad([self.texts.rows[i] for i in chosen])
        return ids.to(self.device), mask.to(self.device)

    @torch.inference_mode()
    def held_out(self, seed: int) -> dict[str, float]:
        """Mean cosine, whitened cosine, share of steering tasks answered and language loss on the held-out texts."""
        order = sorted(range(self.texts.held), key=lambda i: len(self.texts.rows[i]))
        sums: dict[str, float] = {}
        blocks = [order[start : start + 250] for start in range(0, len(order), 250)]
        for index, chosen in enumerate(blocks):
            rng = np.random.default_rng([seed, 2**31, index])
            parts = self.imitation(chosen)
            found = {name: parts[name].item() for name in parts if name == "tokens"}
            found |= {"cosine": 1 - parts["embedding"].item(), "whitened": 1 - parts["whitened"].item()}
            loss, right = self.steered(chosen, rng)
            found |= {"steering": loss.item(), "right": right.float().mean().item()}
            if self.settings["rows"]["language"]:
                found["language"] = self.student.language(*self.padded(chosen), rng).item()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value / len(blocks)
        return {f"held_out_{name}": round(value, 4) for name, value in sums.items()}
