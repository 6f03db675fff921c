"""Where a prompt starts, and that whatever does not fit is said."""

from __future__ import annotations

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.prompts.initialization import (
    COMMON,
    Initial,
    Vectors,
    from_labels,
    from_prompt,
    from_text,
    from_uniform,
    from_vocabulary,
)

TABLE = torch.arange(200 * 4, dtype=torch.float32).view(200, 4)


def of(table: torch.Tensor) -> Vectors:
    return lambda ids: table[list(ids)]


def filler(tokens: int) -> Initial:
    return from_vocabulary(of(TABLE), range(100, 200), tokens, 7, [f"w{i}" for i in range(100, 200)])


def rows(vectors: torch.Tensor) -> list[int]:
    """The table's rows that these vectors are."""
    return [int(vector[0]) // 4 for vector in vectors]


def test_vocabulary_is_sampled_without_repetition_and_reproducibly() -> None:
    words = [f"w{i}" for i in range(50, 150)]
    first = from_vocabulary(of(TABLE), range(50, 150), 20, 3, words)
    found = rows(first.vectors_PH)
    assert len(set(found)) == 20
    assert set(found) <= set(range(50, 150))
    assert first.words == tuple(f"w{i}" for i in found)
    assert first.notes == ()
    assert torch.equal(TABLE[found], first.vectors_PH)
    again = from_vocabulary(of(TABLE), range(50, 150), 20, 3, words)
    assert torch.equal(again.vectors_PH, first.vectors_PH)
    other = from_vocabulary(of(TABLE), range(50, 150), 20, 4, words)
    assert not torch.equal(other.vectors_PH, first.vectors_PH)


def test_all_of_a_vocabulary_and_more_than_all() -> None:
    assert sorted(rows(from_vocabulary(of(TABLE), range(10, 30), 20, 0).vectors_PH)) == list(range(10, 30))
    with pytest.raises(SoftpruneError, match=r"prompt\.init=uniform"):
        from_vocabulary(of(TABLE), range(10, 30), 21, 0)


def test_only_common_words_are_sampled() -> None:
    wide = torch.arange((COMMON + 500) * 2, dtype=torch.float32).view(-1, 2)
    picked = from_vocabulary(of(wide), range(COMMON + 500), 2000, 0).vectors_PH[:, 0] // 2
    assert picked.max() < COMMON
    assert picked.max() > COMMON * 0.9


def test_starting_does_not_share_memory_with_the_model() -> None:
    table = TABLE.clone()
    start = from_vocabulary(of(table), range(10), 10, 0)
    start.vectors_PH.zero_()
    assert torch.equal(table, TABLE)


def test_uniform_keeps_its_bounds() -> None:
    start = from_uniform(64, 100, 0.5, 1)
    assert start.vectors_PH.shape == (100, 64)
    assert start.vectors_PH.abs().max() <= 0.5
    assert start.vectors_PH.min() < -0.49
    assert start.vectors_PH.max() > 0.49
    assert abs(start.vectors_PH.mean()) < 0.02
    assert start.words == ("",) * 100
    assert torch.equal(start.vectors_PH, from_uniform(64, 100, 0.5, 1).vectors_PH)
    assert not torch.equal(start.vectors_PH, from_uniform(64, 100, 0.5, 2).vectors_PH)


def test_a_text_of_the_right_length_is_silent() -> None:
    start = from_text(of(TABLE), [3, 1, 2], ["c", "a", "b"], filler(3))
    assert rows(start.vectors_PH) == [3, 1, 2]
    assert (start.words, start.notes) == (("c", "a", "b"), ())


def test_a_longer_text_is_cut_and_says_so() -> None:
    start = from_text(of(TABLE), [3, 1, 2, 9, 8], list("cabih"), filler(3))
    assert rows(start.vectors_PH) == [3, 1, 2]
    (note,) = start.notes
    assert "5 tokens" in note
    assert "last 2" in note


def test_a_shorter_text_is_filled_and_says_so() -> None:
    start, fill = from_text(of(TABLE), [3, 1], ["c", "a"], filler(5)), filler(5)
    assert rows(start.vectors_PH)[:2] == [3, 1]
    assert torch.equal(start.vectors_PH[2:], fill.vectors_PH[2:])
    assert start.words == ("c", "a", *fill.words[2:])
    (note,) = start.notes
    assert "2 tokens" in note
    assert "other 3 start as sampled vocabulary" in note


def test_labels_are_the_mean_of_their_pieces() -> None:
    labels = [("yes", [10]), ("not at all", [20, 30, 40])]
    start = from_labels(of(TABLE), labels, filler(4))
    assert torch.equal(start.vectors_PH[0], TABLE[10])
    assert torch.equal(start.vectors_PH[1], TABLE[[20, 30, 40]].mean(0))
    assert start.words[:2] == ("yes", "not at all")
    assert torch.equal(start.vectors_PH[2:], filler(4).vectors_PH[2:])
    assert "2 class labels, the prompt has 4 tokens: the other 2" in start.notes[0]
    assert from_labels(of(TABLE), labels, filler(2)).notes == ()
    (note,) = from_labels(of(TABLE), labels, filler(1)).notes
    assert "2 class labels, the prompt has 1 tokens: the last 1" in note


@pytest.mark.parametrize(("held", "asked"), [(3, 3), (5, 3), (2, 4)])
def test_another_prompt_of_any_length(held: int, asked: int) -> None:
    source = torch.randn(held, 4)
    start = from_prompt(source, filler(asked), "old")
    shared = min(held, asked)
    assert torch.equal(start.vectors_PH[:shared], source[:shared])
    assert torch.equal(start.vectors_PH[shared:], filler(asked).vectors_PH[shared:])
    assert start.words[:shared] == tuple(f"old[{p}]" for p in range(shared))
    if held == asked:
        assert start.notes == ()
    else:
        (note,) = start.notes
        assert f"old holds {held} tokens, the prompt has {asked}" in note
        assert ("the last 2 were left out" if held > asked else "the other 2 start as") in note


@pytest.mark.parametrize("shape", [(3, 5), (3,), (1, 3, 4)])
def test_another_prompt_of_another_width_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(SoftpruneError, match="embedding size"):
        from_prompt(torch.zeros(shape), filler(3), "old")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_another_prompt_must_be_finite(value: float) -> None:
    source = torch.zeros(3, 4)
    source[1, 1] = value
    with pytest.raises(SoftpruneError, match="finite"):
        from_prompt(source, filler(3), "old")


def test_values_take_the_fillers_dtype() -> None:
    wide = from_vocabulary(of(TABLE.double()), range(10), 3, 0)
    assert from_text(of(TABLE.double()), [1], ["a"], wide).vectors_PH.dtype == torch.float64
    assert from_prompt(torch.zeros(2, 4, dtype=torch.float16), wide, "old").vectors_PH.dtype == torch.float64
