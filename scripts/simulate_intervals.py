"""How often do intervals cover the true difference of two prompts, and how often is a decision wrong?

Two arms, each trained with S seeds, answer the same n examples. An arm's accuracy varies between seeds with a
standard deviation of `spread`; whether an answer is right depends on the example (for both arms), on the example for
that arm, and on chance, in the shares of `World`; examples of one group share part of what is theirs. The true
difference is known exactly.

    python scripts/simulate_intervals.py            # the tables of docs/statistics.md, as Markdown; some minutes
    python scripts/simulate_intervals.py --trials 500

Axes here: R trials, A two arms, S seeds, N examples, G groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from softprune.statistics.bootstrap import LEVEL
from softprune.statistics.seeds import Uncertainty

Floats = npt.NDArray[np.floating]
Z = 1.959964
CELLS = 4_000_000  # answers drawn at a time
LOOKS = (5, 10)
SPREADS = (0.0, 0.01, 0.015, 0.02, 0.03)


@dataclass(frozen=True)
class World:
    """What is simulated.

    Attributes:
        seeds, examples: of each arm.
        spread: standard deviation over seeds of an arm's accuracy.
        accuracy: of the second arm.
        difference: first minus second arm, in truth.
        both, arm: share of what decides an answer that is the example's, for both arms and for one; the rest is chance.
        group: examples a group.
        alike: intra-group correlation of what is the example's.
    """

    seeds: int
    examples: int
    spread: float
    accuracy: float = 0.85
    difference: float = 0.0
    both: float = 0.65
    arm: float = 0.15
    group: int = 1
    alike: float = 0.0


@dataclass(frozen=True)
class Drawn:
    """Trials: the difference of every seed `[R, S]`; and of every group, summed, in the mean over seeds `[R, G]`."""

    seeds_RS: Floats
    units_RG: Floats
    examples: int

    @property
    def mean_R(self) -> Floats:
        """The difference."""
        return np.asarray(self.seeds_RS.mean(axis=1))

    @property
    def examples_error_R(self) -> Floats:
        """What the bootstrap's standard deviation tends to, with ever more resamples."""
        units = self.units_RG.shape[1]
        return np.asarray(self.units_RG.std(axis=1) * np.sqrt(units) / self.examples)


def draw(world: World, trials: int, seed: int, looks: Sequence[int] = ()) -> list[Drawn]:
    """So many trials, as they are with the first so many seeds of each look; without any, with all seeds."""
    generator = np.random.default_rng(seed)
    at_once = max(1, CELLS // (2 * world.seeds * world.examples))
    parts: list[list[Drawn]] = []
    for done in range(0, trials, at_once):
        less_RSN = _less(world, min(at_once, trials - done), generator)
        parts.append([_drawn(world, less_RSN[:, :count]) for count in looks or (world.seeds,)])
    return [_joined(each) for each in zip(*parts, strict=True)]


def _less(world: World, trials: int, generator: np.random.Generator) -> Floats:
    """The first arm's answer less the second's, to every example, of every seed: -1, 0 or 1, `[R, S, N]`."""

    def normal(*shape: int) -> Floats:
        return generator.standard_normal(shape, dtype=np.float32)

    def of_examples(arms: int) -> Floats:
        """What is the examples' own, `[R, A, 1, N]`, with unit variance; partly the group's."""
        alone = normal(trials, arms, 1, world.examples)
        if world.group == 1:
            return alone
        together = normal(trials, arms, 1, -(-world.examples // world.group))
        together = np.repeat(together, world.group, axis=-1)[..., : world.examples]
        return np.asarray(np.sqrt(np.float32(world.alike)) * together + np.sqrt(np.float32(1 - world.alike)) * alone)

    means_A = np.array([world.accuracy + world.difference, world.accuracy])
    accuracy_RAS = means_A[:, None] + world.spread * normal(trials, 2, world.seeds)
    needed_RAS1 = ndtri(np.clip(accuracy_RAS, 1e-6, 1 - 1e-6)).astype(np.float32)[..., None]
    chance = np.float32(max(0.0, 1 - world.both - world.arm))
    given = np.sqrt(np.float32(world.both)) * of_examples(1) + np.sqrt(np.float32(world.arm)) * of_examples(2)
    right_RASN = given + np.sqrt(chance) * normal(trials, 2, world.seeds, world.examples) < needed_RAS1
    return np.asarray(right_RASN[:, 0].astype(np.float32) - right_RASN[:, 1])


def _drawn(world: World, less_RSN: Floats) -> Drawn:
    sums_RG = np.add.reduceat(less_RSN.mean(axis=1), np.arange(0, world.examples, world.group), axis=1)
    return Drawn(less_RSN.mean(axis=2, dtype=np.float64), np.asarray(sums_RG, np.float64), world.examples)


def _joined(parts: Sequence[Drawn]) -> Drawn:
    seeds_RS, units_RG = (np.concatenate([getattr(part, name) for part in parts]) for name in ("seeds_RS", "units_RG"))
    return Drawn(seeds_RS, units_RG, parts[0].examples)


def reaches(drawn: Drawn, level: float = LEVEL) -> Floats:
    """Half the interval of every trial, as `compare_rows` finds it."""
    seeds, units = drawn.seeds_RS.shape[1], drawn.units_RG.shape[1]
    errors_R = drawn.seeds_RS.std(axis=1, ddof=1) / np.sqrt(seeds)
    found = [
        Uncertainty(float(error), seeds - 1.0, float(examples) or 1.0 / units, units).margin(level)
        for error, examples in zip(errors_R, drawn.examples_error_R, strict=True)
    ]
    return np.array(found)


def coverage(world: World, trials: int, seed: int) -> tuple[float, float]:
    """How often the 95% interval by example covers the truth, and how often that over seeds and examples does."""
    (drawn,) = draw(world, trials, seed)
    off_R = np.abs(drawn.mean_R - world.difference)
    return float(np.mean(off_R <= Z * drawn.examples_error_R)), float(np.mean(off_R <= reaches(drawn)))


def shipped(
    world: World, margin: float, trials: int, seed: int, *, looks: Sequence[int] = LOOKS, level: float = LEVEL
) -> tuple[float, float]:
    """How often the ticket is shipped, and how often the whole prompt, looking again while it is undecided."""
    ticket_R, whole_R = np.zeros(trials, bool), np.zeros(trials, bool)
    for drawn in draw(world, trials, seed, looks):
        reach_R = reaches(drawn, level)
        open_R = ~(ticket_R | whole_R)
        ticket_R |= open_R & (drawn.mean_R - reach_R > -margin)
        whole_R |= open_R & (drawn.mean_R + reach_R < -margin)
    return float(ticket_R.mean()), float(whole_R.mean())


def coverage_table(trials: int) -> str:
    """Coverage by seeds, examples and spread, before and after."""
    lines = ["| seeds | examples | " + " | ".join(f"{100 * spread:g}" for spread in SPREADS) + " |"]
    lines.append("|---:|---:|" + "---:|" * len(SPREADS))
    for seeds in (3, 5, 8, 10):
        for examples in (100, 300, 600):
            found = [coverage(World(seeds, examples, spread), trials, examples + seeds) for spread in SPREADS]
            lines.append(f"| {seeds} | {examples} | {_cells(found)} |")
    return "\n".join(lines)


def group_table(trials: int) -> str:
    """The same of 600 examples in groups; by example neither of the two knows of them."""
    lines = ["| seeds | groups | correlation | spread | by example | over seeds and examples | over seeds and groups |"]
    lines.append("|---:|---:|---:|---:|---:|---:|---:|")
    for seeds in (3, 5, 10):
        for size, alike in ((5, 0.5), (25, 0.2), (25, 0.5)):
            for spread in (0.0, 0.015):
                world = World(seeds, 600, spread, group=size, alike=alike)
                (drawn,) = draw(world, trials, seeds + size)
                apart = replace(drawn, units_RG=ungrouped(world, trials, seeds + size))
                off_R = np.abs(drawn.mean_R)
                shares = [
                    np.mean(off_R <= reach) for reach in (Z * apart.examples_error_R, reaches(apart), reaches(drawn))
                ]
                text = " | ".join(f"{100 * share:.1f}" for share in shares)
                lines.append(f"| {seeds} | {600 // size} | {alike:g} | {100 * spread:g} | {text} |")
    return "\n".join(lines)


def ungrouped(world: World, trials: int, seed: int) -> Floats:
    """The same trials, with every example sampled alone."""
    generator = np.random.default_rng(seed)
    at_once = max(1, CELLS // (2 * world.seeds * world.examples))
    sizes = [min(at_once, trials - done) for done in range(0, trials, at_once)]
    return np.concatenate([_less(world, size, generator).mean(axis=1) for size in sizes])


def decision_table(trials: int) -> str:
    """How often a decision is wrong with one look and with two, at a true difference of minus the margin."""
    heads = "5 seeds: ticket | 5 seeds: whole prompt | 5, then 10: ticket | 5, then 10: whole prompt"
    lines = [f"| spread | examples | {heads} |"]
    lines.append("|---:|---:|---:|---:|---:|---:|")
    margin = 0.01
    for spread in (0.0, 0.01, 0.02, 0.03):
        for examples in (100, 600):
            world = World(10, examples, spread, difference=-margin)
            found = [shipped(world, margin, trials, examples, looks=looks) for looks in (LOOKS[:1], LOOKS)]
            text = " | ".join(f"{100 * share:.1f}" for pair in found for share in pair)
            lines.append(f"| {100 * spread:g} | {examples} | {text} |")
    return "\n".join(lines)


def _cells(found: Sequence[tuple[float, float]]) -> str:
    return " | ".join(f"{100 * before:.1f} → {100 * after:.1f}" for before, after in found)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Coverage of intervals, and wrong decisions, by simulation.")
    parser.add_argument("--trials", type=int, default=4_000, help="of every cell (default: %(default)s)")
    trials = parser.parse_args().trials
    print("Coverage of the 95% interval in percent, by example → over seeds and examples, by the standard deviation")
    print(f"over seeds of an arm's score in points ({trials:,} trials a cell):\n")
    print(coverage_table(trials))
    print("\nGroups of examples that share text, 600 examples:\n")
    print(group_table(trials))
    print("\nWrong decisions in percent, at a true difference of minus the margin:\n")
    print(decision_table(trials))


if __name__ == "__main__":
    main()
