"""Which examples train a prompt, which choose between prompts, and which are only reported on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from softprune.errors import SoftpruneError
from softprune.tasks.task import Splits
from softprune.types import Example

Protocol = Literal["held-out", "paper"]
Examples = tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """The three sets of a run.

    Attributes:
        train: what prompts are trained on.
        select: what every choice is made on.
        report: what is scored once all choices are fixed.
        indices: per set, the examples' `index` in the split that `origin` names.
        origin: per set, its split: train, dev or validation.
        description: the three sets in words, for reports.
    """

    train: Examples
    select: Examples
    report: Examples
    indices: dict[str, tuple[int, ...]]
    origin: dict[str, str]
    description: str


def select_sets(
    splits: Splits,
    protocol: Protocol = "held-out",
    shots: int | None = None,
    fraction: float = 0.2,
    *,
    seed: int,
    limit_report: int | None = None,
) -> Selection:
    """Choose the three sets.

    `held-out`: `select` is the small development set if there is one beside a validation set, else a
    stratified fraction of the (sampled) training set; `report` is validation. `paper`: both are validation.
    Where there is no validation set, the development set stands for it.

    Shots are spread over the gold labels as evenly as the labels allow: each label gets the same number, a
    label that runs out gives all it has, and what is left over goes to the others, lower labels first.
    Where examples share a passage (`group`), whole passages are taken in random order as long as they fit,
    so labels aren't balanced, and a passage never stands on two sides.

    Args:
        splits: the task's data.
        protocol: `held-out` or `paper`.
        shots: training examples to sample before anything else; None takes all.
        fraction: of the training examples that `select` gets where it comes from them.
        seed: of the samples; the three draws don't depend on each other.
        limit_report: report on this many examples only, drawn at random (quick runs).

    Raises:
        SoftpruneError: when a set that is needed is absent or too small to divide.
    """
    if protocol not in ("held-out", "paper"):
        raise SoftpruneError("a protocol out of held-out, paper", f'"{protocol}"', "correct `selection`")
    for name, value in (("shots", shots), ("limit_report", limit_report)):
        if value is not None and value < 1:
            raise SoftpruneError(f"`{name}` of at least 1", str(value), "correct it, or leave it out")
    if splits.train is None or splits.report is None:
        missing = "training" if splits.train is None else "validation or development"
        raise SoftpruneError(
            "a training set and a set to report on", f"no {missing} set in {splits.source}", "add the file"
        )
    said: list[str] = []
    train = _sampled(splits.train, shots, seed, said)
    report = _limited(splits.report, limit_report, seed, said)
    origin: dict[str, str] = {"train": "train", "select": splits.reported, "report": splits.reported}
    select = report
    if protocol == "held-out" and splits.dev is not None and splits.validation is not None:
        select, origin["select"] = splits.dev, "dev"
    elif protocol == "held-out":
        train, select = _divided(train, fraction, seed)
        origin["select"] = "train"
    sets = {"train": train, "select": select, "report": report}
    counts = ", ".join(f"{name} {len(held)} of {origin[name]}" for name, held in sets.items())
    return Selection(
        **sets,
        indices={name: tuple(example.index for example in held) for name, held in sets.items()},
        origin=origin,
        description="; ".join([f"{protocol}: {counts} (seed {seed})", *said, *splits.notes]),
    )


def _sampled(train: Examples, shots: int | None, seed: int, said: list[str]) -> Examples:
    if shots is None:
        return train
    if shots >= len(train):
        if shots > len(train):
            said.append(f"{shots} shots were asked for and all {len(train)} training examples taken")
        return train
    generator = np.random.default_rng([seed, 0])
    if _grouped(train):
        chosen = _whole_groups(train, shots, generator)
        said.append(f"{len(chosen)} shots in whole passages for {shots} asked")
        return chosen
    by_label = _by_label(train)
    quota = _even([len(examples) for examples in by_label], shots)
    return _drawn(by_label, quota, generator)


def _limited(report: Examples, limit: int | None, seed: int, said: list[str]) -> Examples:
    if limit is None or limit >= len(report):
        return report
    said.append(f"reported on {limit} of {len(report)} examples drawn at random: not the full set")
    order = np.random.default_rng([seed, 2]).permutation(len(report))
    return tuple(report[i] for i in sorted(order[:limit]))


def _divided(train: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """The training set in two, stratified by label, or by whole passages."""
    groups = {example.group for example in train} if _grouped(train) else {example.index for example in train}
    if not 0 < fraction < 1 or len(groups) < 2:
        raise SoftpruneError(
            "at least two training examples (or passages) and a fraction between 0 and 1, to hold some out",
            f"{len(groups)} and a fraction of {fraction}",
            "raise `shots`, or take `selection: paper`",
        )
    generator = np.random.default_rng([seed, 1])
    wanted = min(max(1, round(fraction * len(train))), len(train) - 1)
    if _grouped(train):
        select = _whole_groups(train, wanted, generator)
    else:
        by_label = _by_label(train)
        select = _drawn(by_label, _in_proportion([len(held) for held in by_label], wanted), generator)
    held = {example.index for example in select}
    return tuple(example for example in train if example.index not in held), select


def _grouped(examples: Examples) -> bool:
    return any(example.group is not None for example in examples)


def _by_label(examples: Examples) -> list[Examples]:
    by_label: dict[int, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example.gold].append(example)
    return [tuple(by_label[label]) for label in sorted(by_label)]


def _drawn(by_label: list[Examples], quota: Sequence[int], generator: np.random.Generator) -> Examples:
    """So many of each label at random, in the order of the source."""
    chosen = [held[i] for held, n in zip(by_label, quota, strict=True) for i in generator.permutation(len(held))[:n]]
    return tuple(sorted(chosen, key=lambda example: example.index))


def _whole_groups(examples: Examples, n: int, generator: np.random.Generator) -> Examples:
    """Whole groups in random order as long as they fit in n, at least one, and never all of them."""
    sizes: dict[str | None, int] = defaultdict(int)
    for example in examples:
        sizes[example.group] += 1
    names, chosen, total = list(sizes), set[str | None](), 0
    for i in generator.permutation(len(names)):
        fits = total + sizes[names[i]] <= n or not chosen
        if fits and len(chosen) < len(names) - 1:
            chosen.add(names[i])
            total += sizes[names[i]]
    return tuple(example for example in examples if example.group in chosen)


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
    exact = [n * size / sum(sizes) for size in sizes]
    quota = [int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda label: (quota[label] - exact[label], label))
    for label in by_remainder[: n - sum(quota)]:
        quota[label] += 1
    return quota
