"""Alignment against all permutations."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.interpret.alignment import align

H = 5


def drawn(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, H, generator=torch.Generator().manual_seed(seed))


def best_of_all(a: torch.Tensor, b: torch.Tensor) -> tuple[float, list[tuple[int, int]]]:
    """The smallest distance over every way to give each token of the shorter prompt one of the longer one's."""
    found = []
    for order in permutations(range(max(len(a), len(b))), min(len(a), len(b))):
        pairs = list(enumerate(order)) if len(a) <= len(b) else sorted((p, q) for q, p in enumerate(order))
        found.append((math.sqrt(sum(math.dist(a[p].tolist(), b[q].tolist()) ** 2 for p, q in pairs)), pairs))
    return min(found)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (4, 4), (6, 6), (3, 6), (6, 2), (5, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_the_alignment_is_the_best_of_all_permutations(p: int, q: int, seed: int) -> None:
    a, b = drawn(p, seed), drawn(q, 100 + seed)
    found = align(a, b)
    distance, pairs = best_of_all(a, b)
    assert found.aligned == pytest.approx(distance, rel=1e-6)
    assert list(found.pairs) == pairs
    cosines = [float(torch.cosine_similarity(a[i].double(), b[j].double(), dim=0)) for i, j in pairs]
    assert found.aligned_cosine == pytest.approx(sum(cosines) / len(cosines))
    means = torch.cosine_similarity(a.double().mean(0), b.double().mean(0), dim=0)
    assert found.mean_cosine == pytest.approx(float(means))
    if p == q:
        assert found.frobenius == pytest.approx(math.dist(a.flatten().tolist(), b.flatten().tolist()))
        assert found.cosine == pytest.approx(float(torch.cosine_similarity(a.double(), b.double()).mean()))
    else:
        assert (found.frobenius, found.cosine) == (None, None)


def test_a_shuffled_prompt_is_the_same_one_and_a_changed_one_is_not() -> None:
    a = drawn(6, 0)
    order = [3, 1, 5, 0, 2, 4]
    same = align(a, a[order])
    assert same.aligned == 0
    assert [q for _, q in same.pairs] == [order.index(p) for p in range(6)]
    assert same.aligned_cosine == pytest.approx(1)
    assert same.frobenius is not None
    assert same.frobenius > 1
    changed = a[order].clone()
    changed[2] += 0.5
    assert align(a, changed).aligned == pytest.approx(0.5 * math.sqrt(H), rel=1e-6)


def test_a_part_is_contained_in_the_whole() -> None:
    a = drawn(6, 0)
    assert align(a[[4, 2]], a).aligned == 0
    assert align(a, a[[4, 2]]).pairs == ((2, 1), (4, 0))
    assert align(drawn(2, 9), a).aligned > 1


def test_zeros_have_no_cosine() -> None:
    a = drawn(3, 0)
    b = a.clone()
    b[1] = 0
    found = align(a, b)
    assert found.cosine == pytest.approx(1)
    assert found.frobenius == pytest.approx(float(a[1].double().norm()))
    nothing = align(a, torch.zeros(3, H))
    assert (nothing.cosine, nothing.aligned_cosine, nothing.mean_cosine) == (None, None, None)


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 4)), ((0, 3), (2, 3)), ((3,), (2, 3))])
def test_mistakes_are_told(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(SoftpruneError, match="one embedding size"):
        align(torch.zeros(a), torch.zeros(b))
