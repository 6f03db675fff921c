"""What the backbone reads of masked prompts, and that what is pruned is exactly nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from models import FAMILY
from softprune.models.base import Backbone
from softprune.prompts.soft_prompts import full_mask, masked_state, read_one, reading
from softprune.types import Example, Mask, Segment

H, S = 8, 4


def mask_of(tokens: list[int], pruned_pieces: Sequence[tuple[int, int]] = (), count: int = 5, pieces: int = S) -> Mask:
    token_P = torch.zeros(count, dtype=torch.bool)
    token_P[tokens] = True
    piece_PS = token_P[:, None].repeat(1, pieces)
    for p, s in pruned_pieces:
        piece_PS[p, s] = False
    return Mask(token_P, piece_PS)


MASKS = [mask_of([0, 2, 4]), mask_of([1, 2, 3], [(2, 0), (3, 3)])]


def vectors(k: int = 2) -> torch.Tensor:
    return torch.randn(k, 5, H, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_sizes_of_a_mask() -> None:
    mask = MASKS[1]
    assert (mask.tokens, mask.pieces, mask.parameters(H)) == (3, 10, 20)
    elements = mask.elements_PH(H)
    assert elements[2].tolist() == [False] * 2 + [True] * 6
    assert elements[3].tolist() == [True] * 6 + [False] * 2
    assert not elements[0].any()
    full = full_mask(5, S)
    assert (full.tokens, full.pieces, full.parameters(H)) == (5, 20, 40)


def test_zero_keeps_positions_and_is_exactly_zero() -> None:
    start = vectors()
    read = reading(MASKS, H, "zero", start)(start)
    assert read.shape == (2, 5, H)
    for k, mask in enumerate(MASKS):
        alive = mask.elements_PH(H)
        assert torch.equal(read[k][alive], start[k][alive])
        assert (read[k][~alive] == 0).all()


def test_drop_equals_the_hand_shortened_prompt() -> None:
    start = vectors()
    read = reading(MASKS, H, "drop", start)(start)
    assert read.shape == (2, 3, H)
    assert torch.equal(read[0], start[0][[0, 2, 4]])
    by_hand = start[1][[1, 2, 3]].clone()
    by_hand[1, :2] = 0
    by_hand[2, 6:] = 0
    assert torch.equal(read[1], by_hand)


@pytest.mark.parametrize("removal", ["zero", "drop"])
def test_the_gradient_of_what_is_pruned_is_exactly_zero(removal: str) -> None:
    leaf = vectors().requires_grad_()
    read = reading(MASKS, H, removal, leaf)(leaf)
    (read * torch.randn_like(read)).sum().backward()
    assert leaf.grad is not None
    for k, mask in enumerate(MASKS):
        alive = mask.elements_PH(H)
        assert (leaf.grad[k][~alive] == 0).all()
        assert (leaf.grad[k][alive] != 0).all()


@pytest.mark.parametrize("removal", ["zero", "drop"])
def test_a_subset_reads_as_its_members_do(removal: str) -> None:
    start = vectors()
    whole = reading(MASKS, H, removal, start)
    for chosen in ([1], [1, 0]):
        alone = reading([MASKS[k] for k in chosen], H, removal, start)
        assert torch.equal(alone(start[chosen]), whole(start)[chosen])


def test_drop_refuses_prompts_of_different_lengths() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        reading([mask_of([0, 1]), MASKS[0]], H, "drop", vectors())
    assert reading([mask_of([0, 1]), MASKS[0]], H, "zero", vectors()).kept_KQ is None


def test_readings_take_dtype_from_what_they_are_like() -> None:
    assert reading(MASKS, H, "zero", torch.zeros(1)).elements_KPH.dtype == torch.float32
    assert reading(MASKS, H, "zero", vectors()).elements_KPH.dtype == torch.float64


def test_a_state_holds_exact_zeros_whatever_was_there() -> None:
    spoiled = vectors()[1]
    spoiled[0] = float("nan")
    spoiled[2, 0] = -1.0
    state = masked_state(spoiled, MASKS[1])
    assert (state.vectors_PH[~MASKS[1].elements_PH(H)] == 0).all()
    assert not torch.signbit(state.vectors_PH[2, 0])
    assert torch.equal(read_one(state, "zero"), state.vectors_PH)
    assert torch.equal(read_one(state, "drop"), state.vectors_PH[[1, 2, 3]])


def test_a_full_mask_changes_nothing() -> None:
    state = masked_state(vectors()[0], full_mask(5, S))
    for removal in ("zero", "drop"):
        assert torch.equal(read_one(state, removal), vectors()[0])


@pytest.mark.parametrize("name", ["t5", "gpt2", "roberta", "sentence"])
def test_a_backbone_reads_a_dropped_prompt_as_the_shorter_one(name: str, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(name, "float64")
    hidden = backbone.info.hidden
    segments = (Segment("the film was slow and quiet ."), Segment(" it was "), Segment("", answer_slot=True))
    examples = [Example(str(i), i, segments[i:], ("great", "terrible"), 0) for i in range(2)]
    batch = backbone.batch(backbone.encode(examples, 64, 8))
    start = backbone.embeddings_VH()[30:35]
    mask = mask_of([0, 2, 4], [(2, 1)], pieces=8)
    state = masked_state(start, mask)
    by_hand = start[[0, 2, 4]].clone()
    by_hand[1, hidden // 8 : 2 * hidden // 8] = 0
    with torch.no_grad():
        dropped = backbone.scores(read_one(state, "drop")[None], batch, "sum")
        zeroed = backbone.scores(read_one(state, "zero")[None], batch, "sum")
        expected = backbone.scores(by_hand[None], batch, "sum")
    assert FAMILY[name] == backbone.family
    assert torch.equal(dropped, expected)
    assert (zeroed - dropped).abs().max() > 1e-3  # a zeroed token still takes a position
