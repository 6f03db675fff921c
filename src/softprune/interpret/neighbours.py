"""The vocabulary items nearest to prompt vectors, and why raw cosine is a poor measure of near.

Embeddings of trained models share a direction (Ethayarajh, "How contextual are contextualized word representations?",
EMNLP 2019; Mu and Viswanath, "All-but-the-top", ICLR 2018), so any two of them have a high cosine, and a few items lie
near everything. Without the table's mean the cosine separates items again: `centred`, our default. Khashabi et al.
("Prompt waywardness", NAACL 2022) and the studies that we follow use `cosine` and `euclidean`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from softprune.config.registry import unknown
from softprune.errors import SoftpruneError

MEASURES = ("centred", "cosine", "euclidean")

BLOCK = 8192  # rows of the table that are held in float32 at a time
PAIRS = 10_000
# What float32 products may be off by, relative to the numbers that are summed; whatever is that near is measured again.
_SLACK = 1e-5


@dataclass(frozen=True, slots=True)
class Nearest:
    """The K vocabulary items nearest to each of P vectors, nearest first; equally near ones by id."""

    ids_PK: torch.Tensor  # long; -1 where there is no further neighbour, as for a vector of zeros
    values_PK: torch.Tensor  # float64: cosines, or Euclidean distances; 0 where there is no neighbour


@dataclass(frozen=True, slots=True)
class Anisotropy:
    """Mean cosine of random pairs of vocabulary items, as they are and without their mean.

    Near 0 where directions tell items apart.
    """

    raw: float
    centred: float
    pairs: int


def check_measure(measure: str) -> None:
    """Raises: SoftpruneError: for an unknown measure, with the nearest known one."""
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)


def nearest(
    prompt_PH: torch.Tensor,
    table_VH: torch.Tensor,
    k: int,
    measure: str = "centred",
    pool: Sequence[int] | None = None,
    *,
    mean_H: torch.Tensor | None = None,
) -> Nearest:
    """The nearest vocabulary items of each prompt vector.

    A vector without a direction (zeros, as a pruned token; under `centred` also the mean itself) has no neighbours, and
    is none under the two cosines.

    Args:
        prompt_PH: the vectors.
        table_VH: the input embeddings as the model reads them, in any dtype.
        k: how many; the whole pool where it is smaller.
        measure: `centred` (cosine without the table's mean), `cosine`, or `euclidean`.
        pool: ids that count, and of which the mean is taken, which is `mean_H` where it is known; None for all.

    Raises:
        SoftpruneError: for an unknown measure, sizes that differ, or numbers that are none.
    """
    ids_N = _ids(pool, table_VH.shape[0])
    _check_question(prompt_PH, table_VH, k, measure, len(ids_N))
    wide_PH = prompt_PH.detach().to("cpu", torch.float64)
    given_P = wide_PH.any(-1)
    origin_H = torch.zeros(wide_PH.shape[1], dtype=torch.float64)
    if measure == "centred":
        origin_H = table_mean(table_VH, pool) if mean_H is None else mean_H
    wide_PH = wide_PH - origin_H
    count = min(k, len(ids_N))
    found_PK = torch.full((len(wide_PH), count), -1, dtype=torch.long)
    values_PK = torch.zeros(len(wide_PH), count, dtype=torch.float64)
    # float32 products, a block of the table at a time, say which items may be among the K; those are measured again in
    # float64, one by one. So neither blocks nor threads show in the result, and equal items are equally near.
    rough_PN = _rough(wide_PH, table_VH, ids_N, origin_H, measure)
    for p, vector_H in enumerate(wide_PH):
        if not given_P[p] or (measure != "euclidean" and not vector_H.any()):
            continue
        ids_M = ids_N[_candidates(rough_PN[p], count, vector_H, measure)]
        rows_MH = table_VH[ids_M.to(table_VH.device)].detach().to("cpu", torch.float64) - origin_H
        ids_M, values_M = _sort_exactly(ids_M, rows_MH, vector_H, measure)
        found, values = ids_M[:count], values_M[:count]
        found_PK[p, : len(found)], values_PK[p, : len(found)] = found, values
    return Nearest(found_PK, values_PK)


def _check_question(prompt_PH: torch.Tensor, table_VH: torch.Tensor, k: int, measure: str, items: int) -> None:
    check_measure(measure)
    if prompt_PH.dim() != 2 or prompt_PH.shape[1] != table_VH.shape[1]:
        expected, do = f"a prompt [P, {table_VH.shape[1]}] for this vocabulary", "choose a prompt and its own model"
        raise SoftpruneError(expected, f"{list(prompt_PH.shape)}", do)
    if not torch.isfinite(prompt_PH).all():
        raise SoftpruneError("finite numbers in a prompt", "NaN or infinity", "train it with a smaller step size")
    if k < 1:
        raise SoftpruneError("at least 1 neighbour", str(k), "ask for 1 or more")
    if not items:
        raise SoftpruneError("words among which to look", "none in this vocabulary", "use a tokenizer that has words")


def _sort_exactly(
    ids_M: torch.Tensor, rows_MH: torch.Tensor, vector_H: torch.Tensor, measure: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Items by how near they are in float64, and their distances or cosines; rows of zeros have no cosine."""
    if measure == "euclidean":
        exact_M = (rows_MH - vector_H).square().sum(-1).sqrt()
        order = torch.argsort(exact_M, stable=True)  # stable: ids ascend
    else:
        real_M = rows_MH.any(-1)
        ids_M, rows_MH = ids_M[real_M], rows_MH[real_M]
        exact_M = cosines(vector_H.expand_as(rows_MH), rows_MH)
        order = torch.argsort(-exact_M, stable=True)
    return ids_M[order], exact_M[order]


def table_mean(table_VH: torch.Tensor, pool: Sequence[int] | None = None) -> torch.Tensor:
    """Mean of the rows that count, `[H]` float64."""
    ids_N = _ids(pool, table_VH.shape[0])
    total_H = torch.zeros(table_VH.shape[1], dtype=torch.float64)
    for ids_n in ids_N.split(BLOCK):
        total_H += _rows(table_VH, ids_n).sum(0, dtype=torch.float64)
    return total_H / len(ids_N)


def anisotropy(
    table_VH: torch.Tensor,
    pool: Sequence[int] | None = None,
    *,
    pairs: int = PAIRS,
    seed: int = 0,
    mean_H: torch.Tensor | None = None,
) -> Anisotropy:
    """Mean cosine of random pairs of different vocabulary items, with and without the table's mean.

    `table_VH`, `pool` and `mean_H` as of `nearest`; `pairs` are drawn by `seed`.

    Raises:
        SoftpruneError: for fewer than two items.
    """
    ids_N = _ids(pool, table_VH.shape[0])
    if len(ids_N) < 2:
        raise SoftpruneError("two vocabulary items at least", f"{len(ids_N)}", "allow more of the vocabulary")
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(ids_N), (pairs,), generator=generator)
    # Never the item itself: 1 to N - 1 places further.
    second = (first + torch.randint(1, len(ids_N), (pairs,), generator=generator)) % len(ids_N)
    mean_H = table_mean(table_VH, pool) if mean_H is None else mean_H
    raw, centred = 0.0, 0.0
    for one, two in zip(first.split(BLOCK), second.split(BLOCK), strict=True):
        a, b = _rows(table_VH, ids_N[one]), _rows(table_VH, ids_N[two])
        near_H = mean_H.to(a.dtype)
        raw += float(cosines(a, b).sum(dtype=torch.float64))
        centred += float(cosines(a - near_H, b - near_H).sum(dtype=torch.float64))
    return Anisotropy(raw / pairs, centred / pairs, pairs)


def cosines(a_NH: torch.Tensor, b_NH: torch.Tensor) -> torch.Tensor:
    """Cosine of each pair of rows, `[N]`; 0 where either has no direction."""
    size_N = a_NH.norm(dim=-1) * b_NH.norm(dim=-1)
    dot_N = (a_NH * b_NH).sum(-1)
    # The clamp only keeps 0 / 0, which isn't taken, from being NaN.
    cosine_N: torch.Tensor = torch.where(size_N > 0, dot_N / size_N.clamp(min=torch.finfo(size_N.dtype).tiny), 0.0)
    return cosine_N.clamp(-1, 1)


def _ids(pool: Sequence[int] | None, size: int) -> torch.Tensor:
    if pool is None:
        return torch.arange(size)
    ids_N = torch.tensor(sorted(set(pool)), dtype=torch.long)
    if len(ids_N) and not 0 <= int(ids_N[0]) <= int(ids_N[-1]) < size:
        raise ValueError(f"ids in 0 to {size - 1}, not {int(ids_N[0])} to {int(ids_N[-1])}")
    return ids_N


def _rows(table_VH: torch.Tensor, ids_n: torch.Tensor) -> torch.Tensor:
    """Some rows of the table in float32 (float64 if it is that), on the CPU."""
    rows_nH = table_VH[ids_n.to(table_VH.device)].detach().cpu()
    return rows_nH if rows_nH.dtype == torch.float64 else rows_nH.float()


def _rough(
    wide_PH: torch.Tensor, table_VH: torch.Tensor, ids_N: torch.Tensor, origin_H: torch.Tensor, measure: str
) -> torch.Tensor:
    """The larger the nearer, `[P, N]` float32: cosines (-inf of zeros), or `2ab - b²`, which orders as distances do."""
    narrow_PH = wide_PH.float()
    if measure != "euclidean":
        narrow_PH = normalize(narrow_PH, dim=-1)
    rough_PN = torch.empty(len(wide_PH), len(ids_N))
    for part_Pn, ids_n in zip(rough_PN.split(BLOCK, dim=1), ids_N.split(BLOCK), strict=True):
        moved_nH = _rows(table_VH, ids_n).float() - origin_H.float()
        if measure == "euclidean":
            part_Pn[:] = 2 * narrow_PH @ moved_nH.T - moved_nH.square().sum(-1)
        else:
            near_Pn = narrow_PH @ normalize(moved_nH, dim=-1).T
            part_Pn[:] = near_Pn.masked_fill(~moved_nH.any(-1), float("-inf"))
    return rough_PN


def _candidates(rough_N: torch.Tensor, count: int, vector_H: torch.Tensor, measure: str) -> torch.Tensor:
    """Places, ascending, of all that may be among the `count` nearest, given how far rough values may be off."""
    slack = _SLACK
    if measure == "euclidean":
        # |2ab - b²| is at least b² - 2|a||b|, so the largest of them bounds the largest b.
        size = float(vector_H.norm())
        longest = size + math.sqrt(size**2 + float(rough_N.abs().max()))
        slack = _SLACK * (longest**2 + 2 * size * longest)
    least = float(torch.topk(rough_N, count).values[-1])
    return torch.nonzero(rough_N >= least - 2 * slack)[:, 0]
