"""Where a prompt starts, and that whatever does not fit is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.prompts.initialization import COMMON, Initial, check_fits, fit_length, from_vocabulary

TABLE = torch.arange(200 * 4, dtype=torch.float32).view(200, 4)


def of(table: torch.Tensor) -> Callable[[Sequence[int]], torch.Tensor]:
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


def started(source: torch.Tensor, words: list[str], tokens: int) -> Initial:
    return fit_length(source[:tokens], len(source), words, filler(tokens), f"old holds {len(source)} tokens")


def test_what_has_the_right_length_is_silent() -> None:
    start = started(TABLE[[3, 1, 2]], ["c", "a", "b"], 3)
    assert rows(start.vectors_PH) == [3, 1, 2]
    assert (start.words, start.notes) == (("c", "a", "b"), ())


def test_what_is_longer_is_cut_and_says_so() -> None:
    start = started(TABLE[[3, 1, 2, 9, 8]], list("cabih"), 3)
    assert rows(start.vectors_PH) == [3, 1, 2]
    assert start.words == ("c", "a", "b")
    assert start.notes == ("old holds 5 tokens, the prompt has 3 tokens: the last 2 were left out",)


def test_what_is_shorter_is_filled_and_says_so() -> None:
    start, fill = started(TABLE[[3, 1]], ["c", "a"], 5), filler(5)
    assert rows(start.vectors_PH)[:2] == [3, 1]
    assert torch.equal(start.vectors_PH[2:], fill.vectors_PH[2:])
    assert start.words == ("c", "a", *fill.words[2:])
    told = "old holds 2 tokens, the prompt has 5 tokens: the other 3 start as sampled vocabulary"
    assert start.notes == (told,)


def test_notes_of_the_source_come_first() -> None:
    start = fit_length(TABLE[[3]], 1, ["c"], filler(2), "old holds 1 token", ("old: half of it",))
    assert start.notes[0] == "old: half of it"
    assert len(start.notes) == 2


@pytest.mark.parametrize("shape", [(3, 5), (3,), (1, 3, 4)])
def test_another_prompt_of_another_width_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(SoftpruneError, match="embedding size"):
        check_fits(torch.zeros(shape), 4, "old")
    check_fits(torch.zeros(3, 4), 4, "old")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_another_prompt_must_be_finite(value: float) -> None:
    source = torch.zeros(3, 4)
    source[1, 1] = value
    with pytest.raises(SoftpruneError, match="finite"):
        check_fits(source, 4, "old")


def test_values_take_the_fillers_dtype() -> None:
    wide = from_vocabulary(of(TABLE.double()), range(10), 3, 0)
    half = torch.zeros(2, 4, dtype=torch.float16)
    assert fit_length(half, 2, ["a", "b"], wide, "old").vectors_PH.dtype == torch.float64
