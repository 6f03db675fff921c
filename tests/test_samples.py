from __future__ import annotations

from itertools import combinations, product

import pytest

from samples import each_with_one_of_every_group, every_second, pairwise


@pytest.mark.parametrize("sizes", [(4, 6, 2, 2), (3, 3, 3), (2, 4, 3), (5, 2), (3, 1, 4)])
def test_every_two_values_meet(sizes: tuple[int, ...]) -> None:
    values = [[f"{name}{n}" for n in range(size)] for name, size in zip("abcd", sizes, strict=False)]
    rows = pairwise(*values)
    for one, other in combinations(range(len(sizes)), 2):
        assert {(row[one], row[other]) for row in rows} == set(product(values[one], values[other]))
    assert len(set(rows)) == len(rows)
    assert rows == pairwise(*values)


def test_it_is_a_sample() -> None:
    assert len(pairwise(range(4), range(6), range(2), range(2))) <= 27  # of 96; 24 at least
    assert len(pairwise(range(3), range(3), range(3))) <= 11  # of 27; 9 at least


def test_every_second_pair_holds_every_value() -> None:
    rows = every_second("abc", range(4))
    assert len(rows) == 6
    assert {a for a, _ in rows} == set("abc")
    assert {b for _, b in rows} == set(range(4))


def test_every_group_and_every_member_comes() -> None:
    rows = each_with_one_of_every_group("abc", [[1, 2, 3], [4]])
    assert {(a, b > 3) for a, b in rows} == set(product("abc", (False, True)))
    assert {b for _, b in rows} == {1, 2, 3, 4}
