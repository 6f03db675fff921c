"""Which examples share a batch."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softprune.models.batching import WINDOW, collate, scoring_batches, training_batches
from softprune.types import Encoded

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=80)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_every_index_exactly_once_and_reproducible(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    batches = training_batches(lengths, size, seed, epoch)
    assert sorted(chain.from_iterable(batches)) == list(range(len(lengths)))
    assert max(map(len, batches)) <= size
    assert len(batches) == -(-len(lengths) // size)
    assert batches == training_batches(list(lengths), size, seed, epoch)
    assert all(type(i) is int for batch in batches for i in batch)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 40), st.integers(1, 9))
def test_scoring_reads_everything_once_by_length(lengths: list[int], rows: int, multiple: int) -> None:
    batches = scoring_batches(lengths, rows, multiple)
    order = list(chain.from_iterable(batches))
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths)
    assert all(len(batch) * multiple <= max(rows, multiple) for batch in batches)


def test_epochs_and_seeds_differ() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 200).tolist()
    runs = [training_batches(lengths, 8, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(run) for run in runs}) == 9


def test_similar_lengths_share_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 8 * WINDOW * 2).tolist()

    def padding(batches: list[tuple[int, ...]]) -> float:
        read = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
        return 1 - sum(lengths) / read

    shuffled = np.random.default_rng(1).permutation(len(lengths)).reshape(-1, 8)
    assert padding(training_batches(lengths, 8, 0, 0)) < 0.12
    assert padding([tuple(row) for row in shuffled.tolist()]) > 0.35
    # Yet batches do not come in the order of their lengths.
    means = [np.mean([lengths[i] for i in batch]) for batch in training_batches(lengths, 8, 0, 0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_collate_pads_on_the_right() -> None:
    examples = [
        Encoded((5, 6, 7), 1, ((8,), (9, 10)), 1),
        Encoded((4,), 0, ((11, 12, 13), (14,), (15,)), 2),
    ]
    batch = collate(examples, 99, torch.device("cpu"))
    assert len(batch) == 2
    assert batch.input_ids.tolist() == [[5, 6, 7], [4, 99, 99]]
    assert batch.input_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.answer_ids.tolist() == [
        [[8, 99, 99], [9, 10, 99], [99, 99, 99]],
        [[11, 12, 13], [14, 99, 99], [15, 99, 99]],
    ]
    assert batch.answer_mask.sum(-1).tolist() == [[1, 2, 0], [3, 1, 1]]
    assert batch.gold.tolist() == [1, 2]
    assert batch.slot.tolist() == [1, 0]


@pytest.mark.parametrize("rows", [1, 3])
def test_at_least_one_example_a_batch(rows: int) -> None:
    assert scoring_batches([3, 1, 2], rows, multiple=5) == [(1,), (2,), (0,)]
