"""Packing, buckets, and the way back from them."""

from __future__ import annotations

import pytest
import torch
from encoders import texts_of

from softprune.token_pruning.packing import CACHED, Bucket, make_buckets, pack, unbucket
from softprune.token_pruning.rules import text_key

CPU = torch.device("cpu")


def test_pack_by_hand() -> None:
    batch = pack([[7, 8, 9], [5], [6, 6]])
    assert batch.ids_M.tolist() == [7, 8, 9, 5, 6, 6]
    assert batch.position_M.tolist() == [0, 1, 2, 0, 0, 1]
    assert batch.row_M.tolist() == [0, 0, 0, 1, 2, 2]
    assert batch.lengths == (3, 1, 2)
    assert batch.keys == (text_key([7, 8, 9]), text_key([5]), text_key([6, 6]))
    assert len(batch) == 3


def test_buckets_by_hand() -> None:
    """Longest first; 10 and 9 share one (a row of padding in 19 tokens), 5 stands alone."""
    first, second = make_buckets([9, 5, 10], CPU)
    assert (first.rows, first.size) == ((2, 0), (2, 10))
    assert first.index_BN is not None
    assert first.valid_BN is not None
    assert first.index_BN.tolist() == [list(range(14, 24)), [*range(9), 0]]
    assert first.valid_BN.sum(1).tolist() == [10, 9]
    assert (second.rows, second.index_BN, second.begin, second.valid_BN) == ((1,), None, 9, None)


def test_neighbours_of_one_length_need_no_index() -> None:
    (group,) = make_buckets([4, 4, 4], CPU)
    assert (group.index_BN, group.begin, group.valid_BN, group.size) == (None, 0, None, (3, 4))


def test_texts_of_one_length_that_lie_apart() -> None:
    groups = make_buckets([4, 9, 4], CPU)
    assert [group.rows for group in groups] == [(1,), (0, 2)]
    assert groups[1].index_BN is not None
    assert groups[1].valid_BN is None
    assert groups[1].drop_padding(torch.arange(8).view(2, 4)).tolist() == list(range(8))


@pytest.mark.parametrize("waste", [0.0, 0.1, 1.0])
def test_padding_stays_below_the_limit_and_long_texts_alone(waste: float) -> None:
    lengths = torch.randint(1, 200, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    groups = make_buckets(lengths, CPU, waste)
    assert sorted(row for group in groups for row in group.rows) == list(range(60))
    for group in groups:
        batch, longest = group.size
        assert longest == max(lengths[row] for row in group.rows)
        assert batch * longest <= (1 + waste) * sum(lengths[row] for row in group.rows)
        assert batch == 1 or batch * longest**2 <= CACHED


@pytest.mark.parametrize("waste", [0.0, 0.1, 100.0])
@pytest.mark.parametrize("lengths", [(1,), (3, 3), (2, 9, 8, 1, 9, 30), (5, 4, 3, 2)], ids=str)
def test_gathered_and_put_back(lengths: tuple[int, ...], waste: float) -> None:
    x_MH = torch.arange(sum(lengths) * 6.0).view(-1, 6)
    groups = make_buckets(lengths, CPU, waste)
    parts = []
    for group in groups:
        taken = group.gather_heads(x_MH, heads=3)
        batch, longest = group.size
        assert taken.shape == (batch, 3, longest, 2)
        assert taken.is_contiguous()
        first_BN = group.gather(x_MH[:, 0])
        assert torch.equal(taken[:, 0, :, 0], first_BN)
        parts.append(taken.transpose(1, 2).flatten(2))
    assert torch.equal(unbucket(parts, groups), x_MH)


def test_the_first_text_s_padding_is_told_from_its_first_token() -> None:
    """Padding's index is 0, and so is that of the first text's first token."""
    (group,) = make_buckets([2, 3], CPU, 1.0)
    assert isinstance(group, Bucket)
    assert group.valid_BN is not None
    assert group.valid_BN.tolist() == [[True] * 3, [True, True, False]]
    assert group.index_BN is not None
    assert group.drop_padding(group.index_BN).tolist() == [2, 3, 4, 0, 1]


def test_no_texts_no_buckets() -> None:
    assert make_buckets([], CPU) == []


def test_helper_texts() -> None:
    assert [len(text) for text in texts_of([1, 2, 7])] == [1, 2, 7]
