"""Operations by hand, and the floors that the method has."""

from __future__ import annotations

import copy

import pytest
import torch
from encoders import CONVENTIONS, HIDDEN, INNER, LAYERS, batch_of, encoder_of, mixed, rule_of, unpacked

from softprune.token_pruning.forward import evaluate, executed_macs, forward, paper_macs, relative_macs
from softprune.token_pruning.packing import Packed, pack
from softprune.token_pruning.rules import OFFICIAL, Convention


def test_paper_macs_by_hand() -> None:
    # d = 2; layer 0: 4*4*10 + 2*2*100 + 8*4*10 = 160 + 400 + 320; layer 1 of 10, then 4: 160 + 400 + 128
    assert paper_macs(2, [10], [[10]]) == 880
    assert paper_macs(2, [10], [[10, 4]]) == 880 + 688
    # layer 2 of 4, then 1: 64 + 64 + 32
    assert paper_macs(2, [10], [[10, 4, 1]]) == 880 + 688 + 160


def test_executed_macs_by_hand() -> None:
    # d = 2, f = 5; layer 0: 3*4*10 + 2*2*100 + (4 + 20)*10 = 120 + 400 + 240; layer 1, 4 left: 120 + 400 + 96
    assert executed_macs(2, 5, [10], [[10, 4]]) == 760 + 616
    # The last layer for one token: keys and values of 4, a query: 4*(2*4 + 1) ... + output, 2 d n, 2 d f
    assert executed_macs(2, 5, [10], [[10, 4, 1]], head_only=True) == 760 + 616 + (
        2 * 4 * (4 + 1) + 2 * 2 * 4 + 2 * 2 * 5
    )


def test_executed_macs_of_a_first_token_that_was_pruned() -> None:
    # d = 2, f = 5: what it costs beside the living is d^2 + 2 d f in the layer after which it left, then 2 d f.
    kept = [10, 4, 2]
    assert executed_macs(2, 5, [10], [kept], [1]) == executed_macs(2, 5, [10], [kept]) + (4 + 20) + 20
    assert executed_macs(2, 5, [10], [kept], [2]) == executed_macs(2, 5, [10], [kept]) + (4 + 20)
    assert executed_macs(2, 5, [10], [kept], [3]) == executed_macs(2, 5, [10], [kept])
    # For the head alone, the last layer has its feed-forward part only.
    assert executed_macs(2, 5, [10], [kept], [1], head_only=True) == 760 + 616 + (4 + 20) + 20
    assert executed_macs(2, 5, [10], [kept], [2], head_only=True) == executed_macs(2, 5, [10], [kept], head_only=True)


def test_unpruned_of_the_usual_width_the_two_agree() -> None:
    kept = [50] * 4
    assert executed_macs(8, 32, [50], [kept]) == paper_macs(8, [50], [kept])
    assert executed_macs(8, 32, [50], [[50, 20, 10, 5]]) < paper_macs(8, [50], [[50, 20, 10, 5]])
    assert executed_macs(8, 32, [50], [kept], head_only=True) < executed_macs(8, 32, [50], [kept])


def test_relative_macs_weigh_texts_by_their_cost() -> None:
    kept_NL = [[10, 5], [100, 100]]
    whole = paper_macs(4, [10], [[10, 10]]) + paper_macs(4, [100], [[100, 100]])
    wanted = (paper_macs(4, [10], [[10, 5]]) + paper_macs(4, [100], [[100, 100]])) / whole
    assert relative_macs(4, [10, 100], kept_NL) == pytest.approx(wanted)
    assert relative_macs(4, [10, 100], [[10, 10], [100, 100]]) == 1.0
    assert wanted > 0.95  # the long one kept everything


def floor(hidden: int, layers: int, length: int, left: int = 1) -> float:
    """Everything but so many tokens leaves after layer 1, the first that prunes."""
    return relative_macs(hidden, [length], [[length, *[left] * (layers - 1)]])


def test_floors() -> None:
    """Layer 0 and layer 1's attention always run: (12 + 4) of 12 L parts of d^2 n, and 4 of 2 L parts of d n^2."""
    assert floor(768, 12, 1000, left=0) == pytest.approx((16 * 768 + 4 * 1000) / (12 * (12 * 768 + 2 * 1000)))
    # About 11% of 12 layers and 22% of 6 where attention costs little beside the width; a few tenths more for the one
    # token that stays.
    assert floor(10**6, 12, 128, left=0) == pytest.approx(16 / 144, abs=1e-4)
    assert floor(10**6, 6, 128, left=0) == pytest.approx(16 / 72, abs=1e-4)
    assert floor(768, 12, 128) == pytest.approx(0.119, abs=1e-3)
    # MiniLM's 384 and IMDb's 263 tokens: attention's share lifts the floor to 23.7%.
    assert floor(384, 6, 128) == pytest.approx(0.233, abs=1e-3)
    assert floor(384, 6, 263) == pytest.approx(0.237, abs=1e-3)


class Counted:
    """Counts what a pass multiplies: in linear layers by hooks; attention's by its shapes."""

    def __init__(self, model: torch.nn.Module, within: str) -> None:
        self.total = 0
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and within in name:
                module.register_forward_hook(self._hook)

    def _hook(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        del output
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        self.total += inputs[0].numel() * weight.shape[0]


@pytest.mark.parametrize("head_only", [False, True])
@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
@pytest.mark.parametrize("name", ["middle", "importance"])
def test_executed_macs_are_those_of_the_modules(head_only: bool, convention: Convention, name: str) -> None:
    encoder = copy.deepcopy(encoder_of("bert"))
    counted = Counted(encoder.model, "encoder.layer")
    batch: Packed = batch_of(mixed(12, seed=5), seed=5)
    with torch.no_grad():
        found = forward(encoder, batch, rule_of(name, convention), convention, head_only=head_only)
    wanted = without = 0
    for row, length in enumerate(batch.lengths):
        kept = [layer[row] for layer in found.kept_LB]
        first = int(found.left_M[sum(batch.lengths[:row])])
        wanted += executed_macs(HIDDEN, INNER, [length], [kept], [first], head_only=head_only)
        without += executed_macs(HIDDEN, INNER, [length], [kept], head_only=head_only)
        before = [length, *kept[:-1]]
        attention = [2 * HIDDEN * n * n for n in before]
        if head_only:
            attention[-1] = 0 if first < LAYERS - 1 else 2 * HIDDEN * before[-1]
        counted.total += sum(attention)
    assert counted.total == wanted
    assert (without == wanted) == convention.protect
    assert len(found.kept_LB) == LAYERS


def test_a_comparison_counts_what_ran() -> None:
    """`Predictions`, of which bench and run.json have their operations."""
    encoder, ids = encoder_of("bert"), unpacked(batch_of(mixed(12, seed=5), seed=5))
    rule = rule_of("middle", OFFICIAL)
    answers = evaluate(encoder, ids, rule, OFFICIAL, compute=torch.float32, rows=5)
    alone = [forward(encoder, pack([text]), rule, OFFICIAL) for text in ids]
    firsts = [int(read.left_M[0]) for read in alone]
    assert answers.first_N.tolist() == firsts
    assert min(firsts) < LAYERS
    pruned = whole = 0
    for text, read, first in zip(ids, alone, firsts, strict=True):
        kept = [row[0] for row in read.kept_LB]
        pruned += executed_macs(HIDDEN, INNER, [len(text)], [kept], [first])
        whole += executed_macs(HIDDEN, INNER, [len(text)], [[len(text)] * LAYERS])
    assert answers.relative_macs(encoder, executed=True) == pytest.approx(pruned / whole)
