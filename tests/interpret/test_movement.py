from __future__ import annotations

import math

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.interpret.displacement import kept, movement, norm_rms, persisting

TABLE = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, 0.0], [0.0, -4.0], [1.0, 1.0]])


def test_distances_and_cosines_by_hand() -> None:
    start = torch.tensor([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0], [2.0, 0.0]])
    end = torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0], [2.0, 2.0]])
    found = movement(start, end)
    scale = math.sqrt((25 + 1 + 1 + 4) / 4)
    assert found.distance_P.tolist() == pytest.approx([0, 3, 1, 2])
    assert found.relative_P.tolist() == pytest.approx([0, 3 / scale, 1 / scale, 2 / scale])
    assert found.cosine_P.tolist() == pytest.approx([1, -1, 0, math.sqrt(0.5)])
    table_scale = norm_rms(TABLE)
    assert table_scale == pytest.approx(math.sqrt((4 * 16 + 2) / 5))
    by_table = movement(start, end, table_scale)
    assert by_table.relative_P[1] == pytest.approx(3 / table_scale)
    assert by_table.relative_P[1] != pytest.approx(found.relative_P[1])


def test_a_token_is_kept_where_its_nearest_item_is_the_one_it_started_at() -> None:
    start = torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])
    # Far along the same direction, over to another one, and to nowhere.
    end = torch.tensor([[90.0, 5.0], [-4.0, 1.0], [0.0, 0.0]])
    assert kept(start, end, TABLE, "cosine") == [True, False, None]
    assert kept(start, end, TABLE, "euclidean") == [True, False, None]
    assert kept(start, start, TABLE, "cosine") == [True, True, True]
    # The measures differ: in direction the first token is with item 4, and it is still nearest to item 0.
    bent = torch.tensor([[4.0, 2.0]])
    assert kept(start[:1], bent, TABLE, "cosine") == [False]
    assert kept(start[:1], bent, TABLE, "euclidean") == [True]
    assert kept(start[:1], bent, TABLE, "cosine", pool=[0, 1, 2, 3]) == [True]


def test_words_of_several_tasks_whatever_their_case() -> None:
    words = {
        "rte": ["Accurate", "…ly", "yes", "yes"],
        "boolq": ["accurate", "Yes", "ly"],
        "wic": ["ACCURATE", "same", ""],
        "cb": ["none", ""],
    }
    assert list(persisting(words).items()) == [("accurate", ("rte", "boolq", "wic")), ("yes", ("rte", "boolq"))]
    assert list(persisting(words, least=3)) == ["accurate"]
    assert {"…ly", "ly"} < persisting(words, least=1).keys()


def test_mistakes_are_told() -> None:
    with pytest.raises(SoftpruneError, match="one shape"):
        movement(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(SoftpruneError, match="length to measure by"):
        movement(torch.zeros(2, 3), torch.ones(2, 3))
