"""Neighbours against brute force, in float64 and one pair at a time."""

from __future__ import annotations

import math

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.interpret import neighbours
from softprune.interpret.neighbours import MEASURES, anisotropy, nearest, table_mean

V, H, P = 300, 12, 7


def drawn(rows: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(rows, H, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.fixture
def table_VH() -> torch.Tensor:
    table = drawn(V, 0, 2.0)
    table[[40, 41, 290]] = table[17].clone()  # equally near, whatever to
    table[5] = 0
    return table


@pytest.fixture
def prompt_PH(table_VH: torch.Tensor) -> torch.Tensor:
    prompt = drawn(P, 1, 1.0) * 3
    prompt[0] = table_VH[17]
    prompt[1] = 0
    return prompt


def brute(prompt: torch.Tensor, table: torch.Tensor, k: int, measure: str, pool: list[int]) -> list[list[int]]:
    mean = (
        [math.fsum(float(table[i, h]) for i in pool) / len(pool) for h in range(H)] if measure == "centred" else [0] * H
    )
    found = []
    for row in prompt.double().tolist():
        if not any(row):
            found.append([-1] * min(k, len(pool)))
            continue
        a = [x - m for x, m in zip(row, mean, strict=True)]
        ranked = []
        for i in pool:
            b = [x - m for x, m in zip(table[i].double().tolist(), mean, strict=True)]
            if measure == "euclidean":
                ranked.append((round(math.dist(a, b), 12), i))
            elif any(b):
                dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
                ranked.append((round(-dot / math.hypot(*a) / math.hypot(*b), 12), i))
        found.append([i for _, i in sorted(ranked)[:k]])
    return found


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("block", [7, 8192])
@pytest.mark.parametrize("pool", [None, [2, 5, 17, 40, 41, 100, 290, 299]])
def test_neighbours_are_those_of_brute_force(
    measure: str,
    block: int,
    pool: list[int] | None,
    prompt_PH: torch.Tensor,
    table_VH: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    found = nearest(prompt_PH, table_VH, 6, measure, pool)
    assert found.ids_PK.tolist() == brute(prompt_PH, table_VH, 6, measure, pool or list(range(V)))


@pytest.mark.parametrize("measure", MEASURES)
def test_bits_hang_on_no_block(
    measure: str, prompt_PH: torch.Tensor, table_VH: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, mean_H = [], table_mean(table_VH)
    for block in (1, 64, 8192):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        found.append(nearest(prompt_PH, table_VH, 9, measure, mean_H=mean_H))
    assert all(torch.equal(each.values_PK, found[0].values_PK) for each in found)
    assert all(torch.equal(each.ids_PK, found[0].ids_PK) for each in found)


def test_the_measures_disagree(prompt_PH: torch.Tensor, table_VH: torch.Tensor) -> None:
    found = [nearest(prompt_PH, table_VH, 6, measure).ids_PK.tolist() for measure in MEASURES]
    assert found[0] != found[1] != found[2] != found[0]


def test_equal_items_are_in_the_order_of_ids(prompt_PH: torch.Tensor, table_VH: torch.Tensor) -> None:
    for measure, best in zip(MEASURES, (1.0, 1.0, 0.0), strict=True):
        found = nearest(prompt_PH[:1], table_VH, 4, measure)
        assert found.ids_PK.tolist() == [[17, 40, 41, 290]]
        assert found.values_PK.tolist() == [[pytest.approx(best, abs=1e-12)] * 4]
        assert len(set(found.values_PK[0].tolist())) == 1


def test_values_are_cosines_and_distances(table_VH: torch.Tensor) -> None:
    prompt = drawn(3, 4)
    ids = nearest(prompt, table_VH, 1, "euclidean")
    wanted = torch.cdist(prompt.double(), table_VH.double()).min(1).values
    assert torch.allclose(ids.values_PK[:, 0], wanted, rtol=1e-12)
    cosine = nearest(prompt, table_VH, 1, "cosine").values_PK[:, 0]
    assert torch.allclose(
        cosine, torch.cosine_similarity(prompt.double()[:, None], table_VH.double()[None], dim=-1).max(1).values
    )
    assert not torch.allclose(cosine, wanted, rtol=1e-2)


@pytest.mark.parametrize("measure", MEASURES)
def test_zeros_have_no_neighbours_and_are_none_in_direction(measure: str, table_VH: torch.Tensor) -> None:
    found = nearest(torch.zeros(1, H), table_VH, 3, measure)
    assert found.ids_PK.tolist() == [[-1, -1, -1]]
    assert found.values_PK.tolist() == [[0.0, 0.0, 0.0]]
    pool = [4, 5, 6]
    near = nearest(-table_VH[4:5], table_VH, 3, "cosine", pool)  # all the others point away
    assert near.ids_PK[0, 2] == -1
    assert 5 not in near.ids_PK[0]
    assert torch.isfinite(near.values_PK).all()


def test_a_vector_at_the_mean_has_no_direction_from_it() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 3.0]])
    at = torch.tensor([[0.0, 1.0]])
    assert nearest(at, table, 2, "centred").ids_PK.tolist() == [[-1, -1]]
    assert nearest(at, table, 2, "cosine").ids_PK.tolist() == [[1, 3]]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_near_ties_far_away_are_told_apart(scale: float) -> None:
    """A long prompt and a short table: float32 products alone confuse distances here."""
    table = drawn(2000, 8) * scale
    prompt = drawn(4, 9) * 300 * scale
    wanted = torch.cdist(prompt.double(), table.double(), compute_mode="donot_use_mm_for_euclid_dist").topk(
        5, largest=False
    )
    assert nearest(prompt, table, 5, "euclidean").ids_PK.tolist() == wanted.indices.tolist()


def test_half_precision_tables_are_read_as_they_are(prompt_PH: torch.Tensor, table_VH: torch.Tensor) -> None:
    half = table_VH.bfloat16()
    a, b = nearest(prompt_PH, half, 5), nearest(prompt_PH, half.float(), 5)
    assert a.ids_PK.tolist() == b.ids_PK.tolist()
    assert torch.equal(a.values_PK, b.values_PK)


def test_a_small_pool_is_all_there_is(prompt_PH: torch.Tensor, table_VH: torch.Tensor) -> None:
    assert nearest(prompt_PH, table_VH, 8, "cosine", [9, 3]).ids_PK.shape == (P, 2)


def test_without_the_mean_cosines_of_shifted_items_fall() -> None:
    shifted = anisotropy(drawn(500, 0, 2.0), seed=3)
    assert shifted.raw == pytest.approx(4 / 5, abs=0.03)  # shift² over shift² + 1
    assert abs(shifted.centred) < 0.02
    straight = anisotropy(drawn(500, 0), seed=3)
    assert abs(straight.raw) < 0.02
    assert anisotropy(drawn(500, 0, 2.0), seed=3) == shifted
    assert anisotropy(drawn(500, 0, 2.0), seed=4) != shifted


def test_random_pairs_are_of_different_items() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = anisotropy(table, pairs=50)
    assert (found.raw, found.centred) == (pytest.approx(0), pytest.approx(-1))


def test_all_pairs_of_a_pool_tell_its_anisotropy(table_VH: torch.Tensor) -> None:
    pool = list(range(10, 30))
    rows = torch.nn.functional.normalize(table_VH[pool].double(), dim=-1)
    every = ((rows @ rows.T).sum() - 20) / (20 * 19)
    assert anisotropy(table_VH, pool, pairs=40_000).raw == pytest.approx(float(every), abs=5e-3)
    assert torch.allclose(table_mean(table_VH, pool), table_VH[pool].double().mean(0))


def test_mistakes_are_told() -> None:
    table = drawn(20, 0)
    with pytest.raises(SoftpruneError, match=f"a prompt \\[P, {H}\\]"):
        nearest(torch.zeros(2, H + 1), table, 3)
    with pytest.raises(SoftpruneError, match='did you mean "cosine"'):
        nearest(table[:2], table, 3, "cosin")
    with pytest.raises(SoftpruneError, match="NaN or infinity"):
        nearest(table[:2] / 0, table, 3)
    with pytest.raises(SoftpruneError, match="at least 1 neighbour"):
        nearest(table[:2], table, 0)
    with pytest.raises(SoftpruneError, match="words among which to look"):
        nearest(table[:2], table, 1, pool=[])
    with pytest.raises(SoftpruneError, match="two vocabulary items"):
        anisotropy(table, [1])
