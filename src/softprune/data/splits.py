"""Which examples train a prompt, which choose between prompts, and which are only reported on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from softprune.data.sampling import Examples, divide, sample
from softprune.data.task import Splits
from softprune.errors import SoftpruneError

Protocol = Literal["held-out", "paper"]
SETS = ("train", "select", "report")


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
    report_seed: int | None = None,
) -> Selection:
    """Choose the three sets.

    `held-out`: `select` is the small development set if there is one beside a validation set, else a
    stratified fraction of the (sampled) training set; `report` is validation. `paper`: both are validation.
    Where there is no validation set, the development set takes its place.

    Shots are spread over the gold labels as evenly as the labels allow: each label gets the same number, a
    label that runs out gives all it has, and what is left over goes to the others, lower labels first.
    Where examples share a passage or a phrase (`group`), whole groups are taken in random order as long as they fit,
    so no group is on two sides. Labels then take turns if each group has one label (demo), and aren't balanced if
    groups mix labels (MultiRC).

    Tasks that are joined for one prompt have their sets drawn each by itself, as if it were alone, and get the same
    number of shots and of reported examples; what can't be divided by their number is left out.

    Args:
        splits: the task's data.
        protocol: `held-out` or `paper`.
        shots: training examples to sample before anything else; None takes all.
        fraction: of the training examples that `select` gets where it comes from them.
        seed: of the samples; the three draws don't depend on each other.
        limit_report: report on this many examples only, drawn at random (quick runs).
        report_seed: of that draw, where it isn't `seed`: runs of different seeds then report on the same examples.

    Raises:
        SoftpruneError: when a set that is needed is absent or too small to divide.
    """
    if protocol not in ("held-out", "paper"):
        raise SoftpruneError("a protocol out of held-out, paper", f'"{protocol}"', "correct `selection`")
    for name, value in (("shots", shots), ("limit_report", limit_report)):
        if value is not None and value < 1:
            raise SoftpruneError(f"`{name}` of at least 1", str(value), "correct it, or leave it out")
    if splits.parts:
        shots = _share(shots, "task.shots", len(splits.parts))
        limit_report = _share(limit_report, "task.limit_report", len(splits.parts))
        return _join(
            [
                select_sets(
                    part, protocol, shots, fraction, seed=seed, limit_report=limit_report, report_seed=report_seed
                )
                for part in splits.parts
            ]
        )
    if splits.train is None or splits.report is None:
        missing = "training" if splits.train is None else "validation or development"
        found = f"no {missing} set in {splits.source}"
        raise SoftpruneError("a training set and a set to report on", found, "add the file")
    remarks: list[str] = []
    train = _sample_shots(splits.train, shots, seed, remarks)
    report = _limit(splits.report, limit_report, seed if report_seed is None else report_seed, remarks)
    origin: dict[str, str] = {"train": "train", "select": splits.reported, "report": splits.reported}
    select = report
    if protocol == "held-out" and splits.dev is not None and splits.validation is not None:
        select, origin["select"] = splits.dev, "dev"
    elif protocol == "held-out":
        do = "raise task.shots, or set selection.protocol=paper"
        train, select = divide(train, fraction, np.random.default_rng([seed, 1]), do)
        origin["select"] = "train"
    sets = {"train": train, "select": select, "report": report}
    counts = ", ".join(f"{name} {len(examples)} of {origin[name]}" for name, examples in sets.items())
    return Selection(
        **sets,
        indices={name: tuple(example.index for example in examples) for name, examples in sets.items()},
        origin=origin,
        description="; ".join([f"{protocol}: {counts} (seed {seed})", *remarks, *splits.notes]),
    )


def _join(parts: list[Selection]) -> Selection:
    """The sets of several tasks, side by side."""
    sets: dict[str, Examples] = {}
    indices: dict[str, tuple[int, ...]] = {}
    origin: dict[str, str] = {}
    for name in SETS:
        sets[name] = tuple(example for part in parts for example in getattr(part, name))
        indices[name] = tuple(index for part in parts for index in part.indices[name])
        origin[name] = " and ".join(dict.fromkeys(part.origin[name] for part in parts))
    description = "; ".join(f"{part.train[0].task}: {part.description}" for part in parts)
    return Selection(**sets, indices=indices, origin=origin, description=description)


def _share(whole: int | None, name: str, tasks: int) -> int | None:
    """What each of several tasks gets of a number of examples."""
    if whole is not None and whole < tasks:
        raise SoftpruneError(f"{name} of at least {tasks}, one for each task", str(whole), "raise it, or leave it out")
    return None if whole is None else whole // tasks


def _sample_shots(train: Examples, shots: int | None, seed: int, remarks: list[str]) -> Examples:
    if shots is None or shots == len(train):
        return train
    if shots > len(train):
        remarks.append(f"{shots} shots were asked for and all {len(train)} training examples taken")
        return train
    chosen = sample(train, shots, np.random.default_rng([seed, 0]))
    if len(chosen) != shots:
        remarks.append(f"{len(chosen)} shots in whole groups, {shots} were asked for")
    return chosen


def _limit(report: Examples, limit: int | None, seed: int, remarks: list[str]) -> Examples:
    if limit is None or limit >= len(report):
        return report
    remarks.append(f"reported on {limit} of {len(report)} examples drawn at random: not the full set")
    order = np.random.default_rng([seed, 2]).permutation(len(report))
    return tuple(report[i] for i in sorted(order[:limit]))
