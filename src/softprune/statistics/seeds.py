"""Is one row of a table better than another? A test that covers both training seeds and examples.

Training again with another seed gives another score, and so does another sample of examples. Both are random effects,
crossed: every seed answers every example. With S seeds, d_s the paired difference of seed s, and n examples (or groups
of examples that share text):

    v1 = var(d_s, ddof = 1) / S                    sampling of seeds
    v2 = SE_ex^2                                   sampling of examples: bootstrap of the mean over seeds
    df = (v1 + v2)^2 / (v1^2 / (S - 1) + v2^2 / (n - 1))
    interval = mean(d_s) +- t(df) sqrt(v1 + v2)    and p from the same t

Scores of single seeds differ partly because their answers to single examples do, and both v1 and v2 hold that part:
where training seeds hardly matter the interval is somewhat too wide, never too narrow (Clark's min F' is so, too).

It works for every metric and for groups. An interval that resamples examples alone takes the S seeds for all seeds:
with three seeds and 600 examples a 95% interval covers the truth in about 80% of cases if a side's scores vary by 1.5
points between seeds.

Sources: Satterthwaite, Biometrics Bulletin 2 (1946); Welch, Biometrika 34 (1947); Clark, Journal of Verbal Learning and
Verbal Behavior 12 (1973) and Baayen, Davidson and Bates, Journal of Memory and Language 59 (2008) for crossed random
effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from softprune.statistics.bootstrap import (
    LEVEL,
    RESAMPLES,
    Counts,
    Difference,
    Floats,
    Groups,
    Score,
    as_seeds,
    bootstrap_difference,
)

MIN_SEEDS = 3  # a side needs to say anything about the sampling of seeds; with fewer, nothing is concluded
NO_SPREAD = 1e-12  # scores that differ by less differ by rounding alone


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How uncertain a mean difference is, by source."""

    seeds: float  # standard error from the sampling of training seeds
    seeds_df: float  # its degrees of freedom; infinite where neither side is trained
    examples: float  # standard error from the sampling of examples
    units: int  # examples, or groups of them, that were sampled

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return float(np.hypot(self.seeds, self.examples))

    @property
    def df(self) -> float:
        """Degrees of freedom of the whole, by Welch and Satterthwaite."""
        v1, v2 = self.seeds**2, self.examples**2
        if not v1 + v2:  # no spread at all: 0 / 0 below
            return self.seeds_df
        return float((v1 + v2) ** 2 / (v1**2 / self.seeds_df + v2**2 / max(1, self.units - 1)))

    def margin(self, level: float = LEVEL) -> float:
        """Half the width of the interval."""
        from scipy.special import stdtrit  # scipy.stats has it by name, and takes seconds to import

        return float(stdtrit(self.df, 0.5 + level / 2)) * self.error

    def p(self, value: float) -> float:
        """Two-sided p-value of "no difference" where this value was measured."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.df, -abs(value) / self.error))


def compare_rows(
    counts_a: Counts,
    counts_b: Counts | None,
    score: Score,
    groups: Groups = None,
    *,
    seed: int,
    paired: bool = True,
    untrained: bool = False,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two rows that answered the same examples, a minus b, over their training seeds; see `paired_bootstrap`.

    `paired` says whether seed s of a and seed s of b belong together (same data order, or same run); rows with
    different numbers of seeds never do. `untrained`: b has no seeds at all, such as the model without a prompt. Without
    b (None) it is a's mean itself.

    With fewer than 3 seeds on a trained side the interval is by example alone and `covers_seeds` is False: it says
    something about these very prompts, and nothing about the method or the mask.
    """
    a, b = as_seeds(counts_a), [] if counts_b is None else as_seeds(counts_b)
    by_example, drawn_R = bootstrap_difference(a, b, score, groups, seed=seed, resamples=resamples)
    untrained = untrained or not b
    seeds = len(a) if untrained else min(len(a), len(b))
    if seeds < MIN_SEEDS:
        return by_example
    b_S = seed_scores(b, score) if b else np.zeros(1)
    se_seeds, seeds_df = _seed_error(seed_scores(a, score), b_S, paired=paired, untrained=untrained)
    # The spread of equal numbers is not always 0 in floating point, and that of a single number is no number: rows
    # without any spread are as uncertain as one unit's worth.
    examples = float(drawn_R.std(ddof=1)) if np.ptp(drawn_R) > NO_SPREAD else 1.0 / by_example.units
    uncertainty = Uncertainty(se_seeds, seeds_df, examples, by_example.units)
    value, reach = by_example.value, uncertainty.margin()
    return replace(
        by_example,
        low=value - reach,
        high=value + reach,
        p=uncertainty.p(value),
        covers_seeds=True,
        seeds=seeds,
        se_seeds=se_seeds,
        se_examples=examples,
        seeds_df=seeds_df,
    )


def uncertainty_of(difference: Difference) -> Uncertainty:
    """The uncertainty behind the interval of a difference over seeds; a ValueError for one by example alone."""
    if difference.se_seeds is None or difference.seeds_df is None:
        raise ValueError("a difference by example alone has no uncertainty over seeds")
    return Uncertainty(difference.se_seeds, difference.seeds_df, difference.se_examples, difference.units)


def seed_scores(counts: Sequence[Floats], score: Score) -> Floats:
    """The score of each seed, `[S]`, from its counts `[N, C]`."""
    return np.asarray([float(score(counts_NC.sum(axis=0))) for counts_NC in counts])


def _seed_error(a_S: Floats, b_S: Floats, *, paired: bool, untrained: bool) -> tuple[float, float]:
    """Standard error of the mean difference over seeds, and its degrees of freedom."""
    if untrained or (paired and len(a_S) == len(b_S)):
        d_S = a_S - (b_S.mean() if untrained else b_S)
        return float(d_S.std(ddof=1) / np.sqrt(len(d_S))), float(len(d_S) - 1)
    parts = np.array([a_S.var(ddof=1) / len(a_S), b_S.var(ddof=1) / len(b_S)])
    if not parts.any():
        return 0.0, float(len(a_S) + len(b_S) - 2)
    df = parts.sum() ** 2 / (parts**2 / (np.array([len(a_S), len(b_S)]) - 1)).sum()
    return float(np.sqrt(parts.sum())), float(df)
