"""Correlations with their intervals: over items, and between two matrices over the same tasks.

Entries of a matrix of pairs share tasks, so they are no independent items. The permutation test therefore permutes the
tasks of one matrix, rows and columns alike (Mantel, Cancer Research 27, 1967), and the interval resamples tasks.

Axes here: N items, T tasks, R resamples. What can't be computed is None: not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import Floats, percentiles

Kind = Literal["spearman", "pearson"]

RESAMPLES = 2_000
FEWEST = 3  # items or tasks that a correlation needs: two always lie on a line
_EXACT = 1e-12  # a coefficient that differs from another by less differs by rounding alone


@dataclass(frozen=True, slots=True)
class Correlation:
    """How two measurements go together."""

    value: float  # the coefficient, -1 to 1
    # 95% percentile bootstrap interval; None where fewer than half of the resamples had a coefficient.
    low: float | None
    high: float | None
    n: int  # items, or entries of the matrices
    kind: Kind
    tasks: int | None = None  # of matrices alone: how many share the entries
    p: float | None = None  # of matrices alone: two-sided permutation p-value of "the tasks' places don't matter"


def coefficient(x: Sequence[float] | Floats, y: Sequence[float] | Floats, kind: Kind = "spearman") -> float | None:
    """The coefficient alone: Pearson's, or of ranks (ties share their mean). None under 3 items, or for constants."""
    a, b = _finite_pairs(x, y)
    value = float(_coefficients(a[None], b[None], kind)[0]) if len(a) >= FEWEST else math.nan
    return value if math.isfinite(value) else None


def correlate(
    x: Sequence[float] | Floats,
    y: Sequence[float] | Floats,
    kind: Kind = "spearman",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Correlation | None:
    """A correlation over independent items `[N]`, with a bootstrap interval over them.

    Items of which either isn't finite were not measured and are left out. None for fewer than 3 others, or where all of
    x or all of y are the same.

    Raises:
        SoftpruneError: when x and y aren't equally long.
    """
    value = coefficient(x, y, kind)
    if value is None:
        return None
    a, b = _finite_pairs(x, y)
    drawn = np.random.default_rng(seed).integers(len(a), size=(resamples, len(a)))
    return Correlation(value, *_interval(_coefficients(a[drawn], b[drawn], kind)), n=len(a), kind=kind)


def mantel(
    x_TT: Floats, y_TT: Floats, kind: Kind = "spearman", *, seed: int = 0, resamples: int = RESAMPLES
) -> Correlation | None:
    """A correlation of two matrices `[T, T]` over the same tasks, off their diagonals, such as similarity and transfer.

    The p-value counts permutations of the tasks whose coefficient is at least as far from 0, all of them where there
    are no more than `resamples`, else as many drawn ones with 1 added to both counts. The interval resamples tasks; a
    pair of two copies of one task is left out, as the diagonal is, and entries of which either isn't finite. None for
    fewer than 3 tasks or entries, or where all entries of either are the same.

    Raises:
        SoftpruneError: when they aren't two square matrices of one size.
    """
    x_TT, y_TT = np.asarray(x_TT, np.float64), np.asarray(y_TT, np.float64)
    if x_TT.ndim != 2 or x_TT.shape != y_TT.shape or x_TT.shape[0] != x_TT.shape[1]:
        raise SoftpruneError(
            "two square matrices over the same tasks",
            f"{list(x_TT.shape)} and {list(y_TT.shape)}",
            "give a value for each pair, NaN where there is none",
        )
    size = len(x_TT)
    off_TT = ~np.eye(size, dtype=bool)
    value = coefficient(x_TT[off_TT], y_TT[off_TT], kind)
    if value is None:
        return None
    generator = np.random.default_rng(seed)
    tries_all = math.factorial(size) <= resamples
    orders: Iterable[Sequence[int]] = permutations(range(size))
    if not tries_all:
        orders = (generator.permutation(size) for _ in range(resamples))  # type: ignore[misc]
    extreme = counted = 0
    for order in orders:
        permuted = coefficient(x_TT[np.ix_(order, order)][off_TT], y_TT[off_TT], kind)
        if permuted is not None:
            counted += 1
            extreme += abs(permuted) >= abs(value) - _EXACT
    p = extreme / counted if tries_all else (extreme + 1) / (counted + 1)
    resampled_R = np.full(resamples, np.nan)
    for r, tasks in enumerate(generator.integers(size, size=(resamples, size))):
        places, different = np.ix_(tasks, tasks), tasks[:, None] != tasks[None]
        drawn = coefficient(x_TT[places][different], y_TT[places][different], kind)
        if drawn is not None:
            resampled_R[r] = drawn
    n = len(_finite_pairs(x_TT[off_TT], y_TT[off_TT])[0])
    return Correlation(value, *_interval(resampled_R), n=n, kind=kind, tasks=size, p=p)


def _finite_pairs(x: Sequence[float] | Floats, y: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise SoftpruneError("two equally long lists", f"{list(a.shape)} and {list(b.shape)}", "give pairs of values")
    real = np.isfinite(a) & np.isfinite(b)
    return a[real], b[real]


def _coefficients(a_RN: Floats, b_RN: Floats, kind: Kind) -> Floats:
    """Of each row, `[R]`; NaN where one side is all the same."""
    varies_R = (a_RN != a_RN[:, :1]).any(axis=1) & (b_RN != b_RN[:, :1]).any(axis=1)
    if kind == "spearman":
        from scipy.stats import rankdata  # takes seconds to import

        a_RN, b_RN = rankdata(a_RN, axis=1), rankdata(b_RN, axis=1)
    a_RN, b_RN = a_RN - a_RN.mean(axis=1, keepdims=True), b_RN - b_RN.mean(axis=1, keepdims=True)
    size_R = np.linalg.norm(a_RN, axis=1) * np.linalg.norm(b_RN, axis=1)
    values_R: Floats = np.full(len(size_R), np.nan)
    np.divide((a_RN * b_RN).sum(axis=1), size_R, out=values_R, where=varies_R & (size_R > 0))
    return np.clip(values_R, -1.0, 1.0)  # rounding may leave a quotient just beyond 1


def _interval(values_R: Floats) -> tuple[float | None, float | None]:
    """The percentiles; resamples in which all is the same have no coefficient."""
    real = values_R[np.isfinite(values_R)]
    return percentiles(real) if len(real) and 2 * len(real) >= len(values_R) else (None, None)
