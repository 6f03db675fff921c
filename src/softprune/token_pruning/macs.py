"""Multiply-accumulate operations, as the paper counts them and as they were computed.

    paper_macs     4 d^2 n + 2 d n^2 + 8 d^2 n'         a layer; n tokens before, n' after its pruning (section 4.1)
    executed_macs  3 d^2 n + 2 d n^2 + d^2 n' + 2 d f n'   as computed here: tokens that left need no output projection

d is the hidden size, f the feed-forward width. Only real tokens count, in the baseline too. A first token that was
pruned but is read by the head costs d^2 + 2 d f in the layer after which it left and 2 d f in every later one; the
paper's formula doesn't count it.
"""

from __future__ import annotations

from collections.abc import Sequence


def paper_macs(hidden: int, original: int, kept_L: Sequence[int]) -> int:
    """Of one text of `original` tokens, of which `kept_L` are left after each layer."""
    total, before = 0, original
    for after in kept_L:
        total += 4 * hidden**2 * before + 2 * hidden * before**2 + 8 * hidden**2 * after
        before = after
    return total


def executed_macs(
    hidden: int,
    inner: int,
    original: int,
    kept_L: Sequence[int],
    *,
    head_only: bool = False,
    first_left: int | None = None,
) -> int:
    """Of one text, as `forward.forward` computes it.

    Args:
        hidden, inner: d and f.
        original, kept_L: tokens of the text, and those left after each layer.
        head_only: whether the last layer ran for one token alone: keys and values of all, the rest once.
        first_left: the layer after which the first token was pruned, if it was.
    """
    total, before, last = 0, original, len(kept_L) - 1
    feed_forward = 2 * hidden * inner
    if first_left is None:
        first_left = len(kept_L)
    for number, after in enumerate(kept_L):
        fallen = first_left < number
        if head_only and number == last:
            if not fallen:  # a fallen first token attends to nothing
                total += 2 * hidden**2 * (before + 1) + 2 * hidden * before
            total += feed_forward
            break
        total += 3 * hidden**2 * before + 2 * hidden * before**2 + (hidden**2 + feed_forward) * after
        if fallen:
            total += feed_forward
        elif first_left == number:
            total += hidden**2 + feed_forward
        before = after
    return total


def relative_macs(hidden: int, lengths: Sequence[int], kept_LB: Sequence[Sequence[int]]) -> float:
    """Paper's operations of some texts over those of the same texts unpruned."""
    pruned = whole = 0
    for text, length in enumerate(lengths):
        pruned += paper_macs(hidden, length, [kept_B[text] for kept_B in kept_LB])
        whole += paper_macs(hidden, length, [length] * len(kept_LB))
    return pruned / whole
