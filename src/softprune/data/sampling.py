"""Seeded samples of examples: even over labels, in proportion to them, or by whole groups (passages, phrases)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from softprune.errors import SoftpruneError
from softprune.ratios import exact
from softprune.types import Example

Examples = tuple[Example, ...]


def sample(train: Examples, n: int, generator: np.random.Generator) -> Examples:
    """n examples, as many of each label as of any other where the labels allow; or whole groups that fit in n."""
    if has_groups(train):
        return _whole_groups(train, n, generator)
    by_label = _by_label(train)
    return _draw(by_label, _even([len(examples) for examples in by_label], n), generator)


def divide(train: Examples, fraction: float, generator: np.random.Generator, do: str) -> tuple[Examples, Examples]:
    """The training set in two, the second of that fraction; stratified by label, or by whole groups.

    Args:
        train: what to divide.
        fraction: between 0 and 1.
        generator: of the draw.
        do: what the user can do where it can't be divided.

    Raises:
        SoftpruneError: for fewer than two examples (or groups).
    """
    groups = {example.group for example in train} if has_groups(train) else {example.index for example in train}
    if not 0 < fraction < 1 or len(groups) < 2:
        raise SoftpruneError(
            "at least two training examples (or groups) and a fraction between 0 and 1, to hold some out",
            f"{len(groups)} and a fraction of {fraction}",
            do,
        )
    wanted = min(max(1, round(exact(fraction) * len(train))), len(train) - 1)
    if has_groups(train):
        second = _whole_groups(train, wanted, generator)
    else:
        by_label = _by_label(train)
        second = _draw(by_label, _in_proportion([len(examples) for examples in by_label], wanted), generator)
    drawn = {example.index for example in second}
    return tuple(example for example in train if example.index not in drawn), second


def has_groups(examples: Examples) -> bool:
    """Whether examples come in groups."""
    return any(example.group is not None for example in examples)


def _by_label(examples: Examples) -> list[Examples]:
    by_label: dict[int, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example.gold].append(example)
    return [tuple(by_label[label]) for label in sorted(by_label)]


def _draw(by_label: list[Examples], quota: Sequence[int], generator: np.random.Generator) -> Examples:
    """So many of each label at random, in the order of the source."""
    chosen: list[Example] = []
    for examples, n in zip(by_label, quota, strict=True):
        chosen += [examples[i] for i in generator.permutation(len(examples))[:n]]
    return tuple(sorted(chosen, key=lambda example: example.index))


def _whole_groups(examples: Examples, n: int, generator: np.random.Generator) -> Examples:
    """Whole groups in random order as long as they fit in n, at least one, and never all of them.

    Where each group has one label only, the labels take turns.
    """
    golds: dict[str | None, list[int]] = defaultdict(list)
    for example in examples:
        golds[example.group].append(example.gold)
    names = list(golds)
    order = [names[i] for i in generator.permutation(len(names))]
    if all(len(set(golds[name])) == 1 for name in names):
        order = _by_turns(order, [golds[name][0] for name in order])
    chosen, total = set[str | None](), 0
    for name in order:
        fits = total + len(golds[name]) <= n or not chosen
        if fits and len(chosen) < len(names) - 1:
            chosen.add(name)
            total += len(golds[name])
    return tuple(example for example in examples if example.group in chosen)


def _by_turns(names: Sequence[str | None], labels: Sequence[int]) -> list[str | None]:
    """The first name of each label, lower labels first, then the second of each, and so on."""
    earlier: Counter[int] = Counter()
    turns = []
    for name, label in zip(names, labels, strict=True):
        turns.append((earlier[label], label, name))
        earlier[label] += 1
    return [name for _, _, name in sorted(turns, key=lambda turn: turn[:2])]


def _even(sizes: Sequence[int], n: int) -> list[int]:
    """n spread evenly under the sizes; what is left over goes to lower labels first."""
    quota = [0] * len(sizes)
    while n > 0:
        for label, size in enumerate(sizes):
            if n > 0 and quota[label] < size:
                quota[label] += 1
                n -= 1
    return quota


def _in_proportion(sizes: Sequence[int], n: int) -> list[int]:
    """n spread in proportion to the sizes, by largest remainder."""
    total = sum(sizes)
    quota = [n * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda label: (-(n * sizes[label] % total), label))
    for label in by_remainder[: n - sum(quota)]:
        quota[label] += 1
    return quota
