"""Score prompts on a set of examples: losses, answer scores, predictions. Forward passes only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from softprune.models.base import Backbone
from softprune.models.batching import scoring_batches
from softprune.runs.processes import ALONE, Processes
from softprune.statistics.bootstrap import sampled_units
from softprune.types import Batch, Encoded, Example, Scores

T = TypeVar("T")

# A row of a call may hold that many answer tokens; longer ones count as several rows, since each token has its logits.
TOKENS_A_ROW = 16
# Rows that write a text together: each keeps keys and values of all it has read and written.
ROWS_THAT_WRITE = 32


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a run scores: the same for every set and stage."""

    loss: str  # likelihood or rank
    score: str  # sum or mean of an answer's token log-probabilities
    rows: int = 256  # of one backbone call at most
    gradient_rows: int = 64  # the same where gradients are kept (importance); what a training step holds
    match: str = "score"  # predicts by the scores; `generate` by comparing generated text with the answers
    max_answer_length: int = 8  # tokens to generate at most, and of a target text
    processes: Processes = ALONE  # which share the work; each of them gets the whole result
    seed: int = 0  # of the run, for the criterion that draws

    def reporting(self, writes: bool) -> Scoring:
        """The same on `report`: a text is written there alone, since that takes a call a token."""
        return replace(self, match="generate") if writes else self


class ScoredSet:
    """Examples with their token ids, in the same order."""

    def __init__(self, examples: Sequence[Example], encoded: Sequence[Encoded]) -> None:
        self.examples, self.encoded = tuple(examples), tuple(encoded)
        self.lengths = tuple(len(e.input_ids) for e in encoded)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def is_generation(self) -> bool:
        """Whether texts are to be written, and not answers to be chosen."""
        return self.examples[0].is_generation

    @property
    def weight(self) -> int:
        """Rows that an example of this set counts for in a call: one an answer, and one a stretch of its tokens."""
        answers = max(len(e.answer_ids) for e in self.encoded)
        tokens = max(sum(map(len, e.answer_ids)) for e in self.encoded)
        return max(answers, math.ceil(tokens / TOKENS_A_ROW))

    def batch(self, backbone: Backbone, indices: Sequence[int]) -> Batch:
        """A padded batch of some of the examples."""
        return backbone.batch([self.encoded[i] for i in indices])


class SealedSet:
    """The `report` examples. They open once, after every choice is fixed, and aren't even tokenised before."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = tuple(examples)
        self._choices: str | None = None
        self._opened = False

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def units(self) -> int:
        """How many examples, or groups of them that share text, a score is an average over."""
        return len(set(sampled_units([example.group for example in self._examples])))

    def fix(self, choices: str) -> None:
        """Declare that all choices are made, and which."""
        self._choices = choices

    def open(self) -> tuple[Example, ...]:
        """The examples; a RuntimeError before `fix` or a second time: a bug in softprune, never a user's mistake."""
        if self._choices is None:
            raise RuntimeError("`report` was asked for before every choice was fixed")
        if self._opened:
            raise RuntimeError("`report` was asked for twice")
        self._opened = True
        return self._examples


def score_prompts(backbone: Backbone, prompts_KQH: torch.Tensor, data: ScoredSet, scoring: Scoring) -> list[Scores]:
    """Every prompt on every example, crossed: K scores in the order of the prompts.

    The prompts are what the backbone reads; Q may be 0 (zero-shot, K = 1).
    """
    count = prompts_KQH.shape[0]
    # By example, each prompt's loss and scores of the answers; of those examples that this process scores.
    mine: dict[int, list[tuple[float, tuple[float, ...]]]] = {}
    # A sentence model reads an input once for all answers; the others may read it once an answer.
    multiple = count * (1 if backbone.family == "sentence" else data.weight)
    with torch.inference_mode():
        for indices in my_batches(data, scoring.rows, multiple, scoring.processes):
            batch = data.batch(backbone, indices)
            # One forward pass: loss and scores are both made of the same sums of an answer's tokens.
            sums_RA = backbone.shared_sums(prompts_KQH, batch).double()
            scores_RA = backbone.answer_scores(sums_RA, batch, scoring.score)
            losses_R = backbone.answer_losses(sums_RA, batch, scoring.loss, scoring.score)
            scores_BKA = scores_RA.view(count, len(batch), -1).transpose(0, 1).tolist()
            losses_BK = losses_R.view(count, len(batch)).T.tolist()
            for index, losses_K, scores_KA in zip(indices, losses_BK, scores_BKA, strict=True):
                answers = len(data.encoded[index].answer_ids)  # others of the batch may have more
                mine[index] = [(loss, tuple(each[:answers])) for loss, each in zip(losses_K, scores_KA, strict=True)]
    by_prompt = zip(*_gather(mine, scoring.processes), strict=True)
    references: tuple[str, ...] = ()
    if data.is_generation:
        references = tuple(example.answers[0] for example in data.examples)
    results = []
    for prompt_QH, scored in zip(prompts_KQH, by_prompt, strict=True):
        losses, answer_scores = zip(*scored, strict=True)
        texts: tuple[str, ...] = ()
        predicted = [scores.index(max(scores)) for scores in answer_scores]  # of equal ones the first
        if scoring.match == "generate":
            texts = _generate(backbone, prompt_QH, data, scoring)
            predicted = [match_answer(text, e.answers) for text, e in zip(texts, data.examples, strict=True)]
        gold = tuple(example.gold for example in data.examples)
        results.append(Scores(answer_scores, losses, tuple(predicted), gold, texts, references))
    return results


def score_each(backbone: Backbone, prompts: Sequence[torch.Tensor], data: ScoredSet, scoring: Scoring) -> list[Scores]:
    """Prompts of different lengths `[Q, H]`: those of equal length are scored together."""
    results: dict[int, Scores] = {}
    for length in sorted({prompt.shape[0] for prompt in prompts}):
        chosen = [i for i, prompt in enumerate(prompts) if prompt.shape[0] == length]
        stacked = torch.stack([prompts[i] for i in chosen])
        for i, scores in zip(chosen, score_prompts(backbone, stacked, data, scoring), strict=True):
            results[i] = scores
    return [results[i] for i in range(len(prompts))]


def my_batches(data: ScoredSet, rows: int, multiple: int, processes: Processes) -> Sequence[tuple[int, ...]]:
    """This process's share of all examples in batches; see `scoring_batches`. No batch is larger than a fair share."""
    fair = math.ceil(len(data) * multiple / processes.size)
    return processes.part(scoring_batches(data.lengths, min(rows, fair), multiple))


def _gather(mine: dict[int, T], processes: Processes) -> list[T]:
    """What all processes have, in the order of the examples whose indices are the keys."""
    merged: dict[int, T] = {}
    for part in processes.gather(mine):
        merged |= part
    return [merged[index] for index in sorted(merged)]


def _generate(backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring) -> tuple[str, ...]:
    """The text that the model generates for each example."""
    texts: dict[int, str] = {}
    rows = min(scoring.rows, ROWS_THAT_WRITE) if data.is_generation else scoring.rows
    for indices in my_batches(data, rows, 1, scoring.processes):
        written = backbone.generate(prompt_QH, data.batch(backbone, indices), scoring.max_answer_length)
        texts.update(zip(indices, written, strict=True))
    return tuple(_gather(texts, scoring.processes))


def match_answer(text: str, answers: Sequence[str]) -> int:
    """Which answer a generated text is, but for case, blanks and a full stop; -1 for none."""

    def plain(answer: str) -> str:
        return " ".join(answer.casefold().split()).rstrip(".")

    for place, answer in enumerate(answers):
        if plain(answer) == plain(text):
            return place
    return -1
