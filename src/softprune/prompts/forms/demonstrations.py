"""Labelled training examples as a text of a prompt's length: what context-aware prompt tuning starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from softprune.models.token_ids import plain_ids
from softprune.models.tokenization import continuation_ids
from softprune.types import Example


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """P tokens of demonstrations, one behind another."""

    ids_P: tuple[int, ...]
    turns_P: tuple[int, ...]  # 0, but for the tokens of a label: that of the last demonstration has 1, and on
    note: str  # how many there are of, and what was cut


def demonstrate(tokenizer: Any, examples: Sequence[Example], tokens: int, seed: int) -> Demonstrations:
    """The last P (`tokens`) tokens of as many demonstrations as that takes.

    Examples come in an order drawn by the seed, each answer in turn, and again from the first where they run out. The
    beginning is what is cut: the end of a demonstration, its label, is what says most.
    """
    ids: list[int] = []
    turns: list[int] = []
    count = 0
    for count, example in enumerate(cycle(take_turns(examples, seed)), start=1):
        own, is_label = demonstration_ids(tokenizer, example)
        # Each goes in front of those that are there.
        ids, turns = [*own, *ids], [*(count * label for label in is_label), *turns]
        if len(ids) >= tokens:
            break
    cut = len(ids) - tokens
    note = f"the prompt starts as {count} demonstration{'s' * (count != 1)}"
    if count > len(examples):
        note += f", of {len(examples)} training example{'s' * (len(examples) != 1)}"
    if cut:
        note += ", the first without its first token" if cut == 1 else f", the first without its first {cut} tokens"
    return Demonstrations(tuple(ids[cut:]), tuple(turns[cut:]), note)


def take_turns(examples: Sequence[Example], seed: int) -> list[Example]:
    """Examples in an order drawn by the seed, those of different answers in turn."""
    waiting: dict[str, list[Example]] = {}
    for place in np.random.default_rng(seed).permutation(len(examples)):
        example = examples[int(place)]
        name = "" if example.is_generation else example.answers[example.gold]
        waiting.setdefault(name, []).append(example)
    ordered: list[Example] = []
    for turn in range(max(map(len, waiting.values()))):
        ordered += [queue[turn] for queue in waiting.values() if turn < len(queue)]
    return ordered


def demonstration_ids(tokenizer: Any, example: Example) -> tuple[list[int], list[bool]]:
    """Token ids of an example with its answer at the place for it (behind the text where there is none), and which of
    them are the answer's."""
    place = next((n for n, segment in enumerate(example.segments) if segment.answer_slot), len(example.segments))
    before = "".join(segment.text for segment in example.segments[:place]).strip()
    behind = "".join(segment.text for segment in example.segments[place:]).rstrip()
    label = continuation_ids(tokenizer, example.answers[max(0, example.gold)])
    first = plain_ids(tokenizer, before) if before else []
    last = plain_ids(tokenizer, behind) if behind else []
    is_label = [False] * len(first) + [True] * len(label) + [False] * len(last)
    return [*first, *label, *last], is_label
