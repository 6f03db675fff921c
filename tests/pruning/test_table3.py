"""The paper's Table 3: tunable parameters of T5-XL's tickets, from masks made by hand."""

from __future__ import annotations

import pytest
import torch

from softprune.pruning.masks import piece_mask, token_mask
from softprune.types import Mask

P, S, HIDDEN = 20, 16, 2048
TENTHS = [tenth / 10 for tenth in range(1, 10)]
# Parameters as printed, and tokens with equally many pieces each that have them.
PRINTED = {
    "WiC": (2_560, 2, 10),
    "WSC": (6_144, 4, 12),
    "CB": (2_560, 2, 10),
    "COPA": (15_232, 17, 7),
    "RTE": (512, 2, 2),
    "BoolQ": (29_184, 19, 12),
    "MultiRC": (27_648, 18, 12),
}
SHARES = {"WiC": 6.25, "WSC": 15, "CB": 6.25, "COPA": 37.1875, "RTE": 1.25, "BoolQ": 71.25, "MultiRC": 67.5}


def by_hand(tokens: int, pieces: int) -> Mask:
    piece_PS = torch.zeros(P, S, dtype=torch.bool)
    piece_PS[:tokens, :pieces] = True
    return Mask(piece_PS.any(1), piece_PS)


def test_an_unpruned_prompt() -> None:
    assert by_hand(P, S).parameters(HIDDEN) == 20 * 2_048 == 40_960


@pytest.mark.parametrize("task", PRINTED)
def test_the_printed_counts(task: str) -> None:
    parameters, tokens, pieces = PRINTED[task]
    mask = by_hand(tokens, pieces)
    assert mask.parameters(HIDDEN) == parameters
    assert 100 * parameters / 40_960 == SHARES[task]
    assert by_hand(tokens, pieces - 1).parameters(HIDDEN) != parameters


def reached(scope: str, rounding: str) -> set[int]:
    """What all pairs of tenths leave."""
    draw = torch.Generator().manual_seed(0)
    token_P, piece_PS = torch.rand(P, generator=draw), torch.rand(P, S, generator=draw)
    found = set()
    for token_ratio in TENTHS:
        kept_P = token_mask(token_P, token_ratio, rounding)
        for piece_ratio in TENTHS:
            pieces = piece_mask(piece_PS, kept_P, piece_ratio, scope, rounding)
            found.add(Mask(kept_P, pieces).parameters(HIDDEN))
    return found


@pytest.mark.parametrize(
    ("scope", "rounding", "given"),
    [
        ("global", "nearest", {6_144}),
        ("global", "floor", {6_144}),
        ("per_token", "nearest", {512, 2_560, 6_144}),
        ("per_token", "floor", {512, 6_144, 27_648}),
    ],
)
def test_which_of_them_tenths_give(scope: str, rounding: str, given: set[int]) -> None:
    """No reading gives COPA's and BoolQ's: 119 and 228 pieces are 17 tokens of 7 and 19 of 12, and 15% and 5% of the
    tokens are no tenths. No one reading gives all of the rest."""
    assert reached(scope, rounding) & {parameters for parameters, _, _ in PRINTED.values()} == given
