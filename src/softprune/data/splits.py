"""Which examples train a prompt, which choose between prompts, and which are only reported on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np

from softprune.data.definition import Split
from softprune.errors import SoftpruneError
from softprune.ratios import exact
from softprune.types import Example

Protocol = Literal["held-out", "paper"]
SETS = ("train", "select", "report")
Examples = tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Splits:
    """What a task's data holds."""

    train: Examples | None
    dev: Examples | None  # a small development set beside the validation set (FewGLUE's dev32)
    validation: Examples | None  # what is reported; the test set where a benchmark publishes its labels
    source: str  # folder or hub name
    layout: str  # official, hub, file or generated
    verified: bool  # whether this layout was checked against the real data
    notes: tuple[str, ...] = ()  # what a reader of the results must know
    parts: tuple[Splits, ...] = ()  # the data of each task, where a prompt serves several

    @property
    def reported(self) -> Split:
        """The split that results are reported on: validation, or dev where that is absent."""
        return "validation" if self.validation is not None else "dev"

    @property
    def report(self) -> Examples | None:
        """The examples that results are reported on."""
        return self.validation if self.validation is not None else self.dev


@dataclass(frozen=True, slots=True)
class Selection:
    """The three sets of a run."""

    train: Examples  # what prompts are trained on
    select: Examples  # what every choice is made on
    report: Examples  # what is scored once all choices are fixed
    origin: dict[str, str]  # per set, its split: train, dev or validation
    description: str  # the three sets in words, for reports
    unlabelled: Examples = ()  # rows whose labels nobody looks at (gold is -1), for a teacher to answer

    @property
    def indices(self) -> dict[str, list[int]]:
        """Per set, the examples' `index` in the split that `origin` names."""
        return {name: [example.index for example in getattr(self, name)] for name in SETS}


def select_sets(
    splits: Splits,
    protocol: Protocol = "held-out",
    shots: int | None = None,
    fraction: float = 0.2,
    *,
    seed: int,
    limit_report: int | None = None,
    report_seed: int | None = None,
    rest: bool = False,
) -> Selection:
    """Choose the three sets. `report` is the validation set, or the development set where there is none.

    Under `held-out`, `select` is the development set if there is one beside the validation set, else that fraction of
    the training examples; under `paper`, it is `report`. Before that, so many `shots` of the training set are sampled
    (None: all). A limited report set is drawn at random; with the same `report_seed`, runs of different seeds report on
    the same examples. With `rest`, what the shots leave of the training set is there without its labels, in a random
    order.

    Tasks that are joined for one prompt get the same number of shots and of reported examples each; what can't be
    divided by their number is left out.

    Raises:
        SoftpruneError: when a set that is needed is absent or too small to divide.
    """
    if splits.parts:
        tasks = len(splits.parts)
        shots, limit = _share(shots, "task.shots", tasks), _share(limit_report, "task.limit_report", tasks)
        drawn = []
        for part in splits.parts:
            options = (part, protocol, shots, fraction)
            drawn.append(select_sets(*options, seed=seed, limit_report=limit, report_seed=report_seed, rest=rest))
        return _join(drawn)
    if splits.train is None or splits.report is None:
        missing = "training" if splits.train is None else "validation or development"
        found = f"no {missing} set in {splits.source}"
        raise SoftpruneError("a training set and a set to report on", found, "add the file")
    # The three draws have generators of their own, so that none depends on whether another one happens.
    remarks: list[str] = []
    train = _sample_shots(splits.train, shots, np.random.default_rng([seed, 0]), remarks)
    unlabelled = _rest(splits.train, train, np.random.default_rng([seed, 3])) if rest else ()
    report = splits.report
    if limit_report is not None and limit_report < len(report):
        remarks.append(f"reported on {limit_report} of {len(report)} examples drawn at random: not the full set")
        order = np.random.default_rng([seed if report_seed is None else report_seed, 2]).permutation(len(report))
        report = tuple(report[i] for i in sorted(order[:limit_report]))
    select, select_origin = report, str(splits.reported)
    if protocol == "held-out" and splits.dev is not None and splits.validation is not None:
        select, select_origin = splits.dev, "dev"
    elif protocol == "held-out":
        do = "raise task.shots, or set selection.protocol=paper"
        train, select = divide(train, fraction, np.random.default_rng([seed, 1]), do)
        select_origin = "train"
    sets = {"train": train, "select": select, "report": report}
    origin = {"train": "train", "select": select_origin, "report": str(splits.reported)}
    counts = ", ".join(f"{name} {len(examples)} of {origin[name]}" for name, examples in sets.items())
    description = "; ".join([f"{protocol}: {counts} (seed {seed})", *remarks, *splits.notes])
    return Selection(**sets, origin=origin, description=description, unlabelled=unlabelled)


def _rest(train: Examples, chosen: Examples, generator: np.random.Generator) -> Examples:
    """What wasn't chosen, without labels; texts that were (of a passage, say) aren't among them."""
    texts = {example.text for example in chosen}
    rest = [replace(example, gold=-1) for example in train if example.text not in texts]
    return tuple(rest[at] for at in generator.permutation(len(rest)))


def _join(parts: Sequence[Selection]) -> Selection:
    """The sets of several tasks side by side, each drawn as if the task were alone."""
    sets: dict[str, Examples] = {}
    origin: dict[str, str] = {}
    for name in SETS:
        sets[name] = tuple(chain.from_iterable(getattr(part, name) for part in parts))
        origin[name] = " and ".join(dict.fromkeys(part.origin[name] for part in parts))
    description = "; ".join(f"{part.train[0].task}: {part.description}" for part in parts)
    unlabelled = tuple(chain.from_iterable(part.unlabelled for part in parts))
    return Selection(**sets, origin=origin, description=description, unlabelled=unlabelled)


def _share(whole: int | None, name: str, tasks: int) -> int | None:
    """What each of several tasks gets of a number of examples."""
    if whole is None:
        return None
    if whole < tasks:
        raise SoftpruneError(f"{name} of at least {tasks}, one for each task", str(whole), "raise it, or leave it out")
    return whole // tasks


def _sample_shots(train: Examples, shots: int | None, generator: np.random.Generator, remarks: list[str]) -> Examples:
    if shots is None or shots == len(train):
        return train
    if shots > len(train):
        remarks.append(f"{shots} shots were asked for and all {len(train)} training examples taken")
        return train
    chosen = sample(train, shots, generator)
    if len(chosen) != shots:
        remarks.append(f"{len(chosen)} shots in whole groups, {shots} were asked for")
    return chosen


def sample(train: Examples, n: int, generator: np.random.Generator) -> Examples:
    """n examples, spread over the gold labels as evenly as the labels allow.

    A label that runs out gives all it has, and what is left over goes to the others, lower labels first. Where
    examples share a passage or a phrase, these are whole groups that fit in n.
    """
    if _has_groups(train):
        return _draw_groups(train, n, generator)
    by_label = _by_label(train)
    quota = [0] * len(by_label)
    while n > 0:
        for label, examples in enumerate(by_label):
            if n > 0 and quota[label] < len(examples):
                quota[label] += 1
                n -= 1
    return _draw(by_label, quota, generator)


def divide(train: Examples, fraction: float, generator: np.random.Generator, do: str) -> tuple[Examples, Examples]:
    """The training set in two, the second of that fraction; stratified by label, or by whole groups.

    Fewer than two examples (or groups) are refused; `do` says what the user can do about it.
    """
    is_grouped = _has_groups(train)
    units = {example.group if is_grouped else example.index for example in train}
    if len(units) < 2:
        raise SoftpruneError("at least two training examples (or groups), to hold some out", str(len(units)), do)
    wanted = min(max(1, round(exact(fraction) * len(train))), len(train) - 1)  # neither side is empty
    if is_grouped:
        second = _draw_groups(train, wanted, generator)
    else:
        by_label = _by_label(train)
        second = _draw(by_label, _in_proportion([len(examples) for examples in by_label], wanted), generator)
    drawn = {example.index for example in second}
    return tuple(example for example in train if example.index not in drawn), second


def _has_groups(examples: Examples) -> bool:
    return any(example.group is not None for example in examples)


def _by_label(examples: Examples) -> list[list[Example]]:
    by_label: dict[int, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example.gold].append(example)
    return [by_label[label] for label in sorted(by_label)]


def _draw(by_label: list[list[Example]], quota: Sequence[int], generator: np.random.Generator) -> Examples:
    """So many of each label at random, in the order of the source."""
    chosen: list[Example] = []
    for examples, n in zip(by_label, quota, strict=True):
        chosen += [examples[i] for i in generator.permutation(len(examples))[:n]]
    return tuple(sorted(chosen, key=lambda example: example.index))


def _draw_groups(examples: Examples, n: int, generator: np.random.Generator) -> Examples:
    """Whole groups in random order as long as they fit in n, at least one, and never all of them.

    Labels take turns where each group has one label only (demo's phrases); where groups mix them (MultiRC's passages),
    labels aren't balanced.
    """
    golds: dict[str | None, list[int]] = defaultdict(list)
    for example in examples:
        golds[example.group].append(example.gold)
    names = list(golds)
    order = [names[i] for i in generator.permutation(len(names))]
    if all(len(set(golds[name])) == 1 for name in names):
        # The first group of each label, lower labels first, then the second of each, and so on.
        earlier: Counter[int] = Counter()
        turns: dict[str | None, tuple[int, int]] = {}
        for name in order:
            label = golds[name][0]
            turns[name] = (earlier[label], label)
            earlier[label] += 1
        order.sort(key=lambda name: turns[name])
    chosen, total = set[str | None](), 0
    for name in order:
        fits = total + len(golds[name]) <= n or not chosen
        if fits and len(chosen) < len(names) - 1:  # one stays, so that no side is empty
            chosen.add(name)
            total += len(golds[name])
    return tuple(example for example in examples if example.group in chosen)


def _in_proportion(sizes: Sequence[int], n: int) -> list[int]:
    """n spread in proportion to the sizes, by largest remainder; in integers, since a float's last bit would choose."""
    total = sum(sizes)
    quota = [n * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda label: (-(n * sizes[label] % total), label))
    for label in by_remainder[: n - sum(quota)]:
        quota[label] += 1
    return quota
