"""Texts of a batch laid end to end without padding, and the buckets in which their attention is computed.

Everything but attention works on single tokens, so padding is needed nowhere else. Texts of similar length share a
bucket; long ones have one of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch

from softprune.token_pruning.rules import text_key

# Share of a bucket that may be padding. A GPU may have more: there, launching another kernel costs more than padding.
WASTE = 0.12
WASTE_ON_GPU = 1.0
# On a CPU, attention probabilities of one head in one bucket, unless a single text has more: those of all heads then
# stay in the cache, and texts of more than a hundred tokens are alone, without an index or a mask.
CACHED = 1 << 14


@dataclass(frozen=True, slots=True)
class Packed:
    """Token ids of some texts, end to end."""

    ids_M: torch.Tensor
    position_M: torch.Tensor  # of each token in its text
    row_M: torch.Tensor  # text of each token
    lengths: tuple[int, ...]  # tokens of each text
    keys: tuple[int, ...]  # `rules.text_key` of each text

    def __len__(self) -> int:
        return len(self.lengths)


def pack(texts: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Packed:
    """Lay the token ids of some texts end to end."""
    lengths = tuple(map(len, texts))
    sizes = torch.tensor(lengths)
    row_M = torch.arange(len(texts)).repeat_interleave(sizes)
    position_M = torch.arange(int(sizes.sum())) - (sizes.cumsum(0) - sizes)[row_M]
    ids_M = torch.tensor(list(chain.from_iterable(texts)))
    return Packed(ids_M.to(device), position_M.to(device), row_M.to(device), lengths, tuple(map(text_key, texts)))


@dataclass(frozen=True, slots=True)
class Bucket:
    """B texts of up to N tokens whose attention is computed in one call."""

    rows: tuple[int, ...]  # the texts
    index_BN: torch.Tensor | None  # their tokens among the packed ones, 0 in padding; None if they lie in one piece
    begin: int  # of that piece
    valid_BN: torch.Tensor | None  # False in padding; None where there is none
    size: tuple[int, int]  # B and N

    @property
    def attention_mask(self) -> torch.Tensor | None:
        """Which keys may be attended to, `[B, 1, 1, N]`; None for all of them."""
        return None if self.valid_BN is None else self.valid_BN[:, None, None, :]

    def gather(self, x_M: torch.Tensor) -> torch.Tensor:
        """`[M, ...]` to `[B, N, ...]`; padding holds a copy of some token."""
        return self._piece(x_M) if self.index_BN is None else x_M[self.index_BN]

    def gather_heads(self, x_MH: torch.Tensor, heads: int) -> torch.Tensor:
        """`[M, heads * D]` to `[B, heads, N, D]`."""
        # Contiguous: batched products of strided matrices take twice as long.
        part_BhND: torch.Tensor = self.gather(x_MH).unflatten(-1, (heads, -1)).transpose(1, 2)
        return part_BhND.contiguous()

    def scatter(self, part_BN: torch.Tensor, whole_M: torch.Tensor) -> None:
        """Write `[B, N, ...]` to the positions of the bucket's tokens in `[M, ...]`."""
        if self.index_BN is None:
            self._piece(whole_M).copy_(part_BN)
        else:
            whole_M[self.drop_padding(self.index_BN)] = self.drop_padding(part_BN)

    def drop_padding(self, part_BN: torch.Tensor) -> torch.Tensor:
        """`[B, N, ...]` to `[M, ...]`."""
        return part_BN.flatten(0, 1) if self.valid_BN is None else part_BN[self.valid_BN]

    def _piece(self, x_M: torch.Tensor) -> torch.Tensor:
        piece_BN: torch.Tensor = x_M[self.begin : self.begin + self.size[0] * self.size[1]].unflatten(0, self.size)
        return piece_BN


def make_buckets(lengths: Sequence[int], device: torch.device, waste: float | None = None) -> list[Bucket]:
    """Group texts of similar length; `waste` is the most padding, as a share of the tokens (None: by device)."""
    if waste is None:
        waste = WASTE_ON_GPU if device.type == "cuda" else WASTE
    groups: list[list[int]] = []
    group, tokens = list[int](), 0
    # Longest first, so that the first text of a group is as wide as its bucket.
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        longest = lengths[group[0]] if group else lengths[row]
        size = longest * (len(group) + 1)
        full = device.type != "cuda" and size * longest > CACHED
        if not group or full or size > (1 + waste) * (tokens + lengths[row]):
            group, tokens = [], 0
            groups.append(group)
        group.append(row)
        tokens += lengths[row]
    begins = list(accumulate(lengths, initial=0))
    return [_make_bucket(group, lengths, begins, device) for group in groups]


def _make_bucket(rows: Sequence[int], lengths: Sequence[int], begins: Sequence[int], device: torch.device) -> Bucket:
    batch, longest = len(rows), lengths[rows[0]]
    even = lengths[rows[-1]] == longest
    if even and list(rows) == list(range(rows[0], rows[0] + batch)):
        return Bucket(tuple(rows), None, begins[rows[0]], None, (batch, longest))
    position_BN = torch.arange(longest).expand(batch, -1)
    valid_BN = position_BN < torch.tensor([lengths[row] for row in rows])[:, None]
    begin_B1 = torch.tensor([begins[row] for row in rows])[:, None]
    index_BN = torch.where(valid_BN, position_BN + begin_B1, 0).to(device)
    return Bucket(tuple(rows), index_BN, begins[rows[0]], None if even else valid_BN.to(device), (batch, longest))


def unbucket(parts: Sequence[torch.Tensor], buckets: Sequence[Bucket]) -> torch.Tensor:
    """Parts `[B, N, ...]` of the buckets, which hold every text once, to packed order `[M, ...]`; with gradients."""
    joined_M = torch.cat([bucket.drop_padding(part) for part, bucket in zip(parts, buckets, strict=True)])
    index_M = torch.arange(len(joined_M), device=joined_M.device)
    origin_M = torch.cat([bucket.drop_padding(bucket.gather(index_M)) for bucket in buckets])
    return joined_M[origin_M.argsort()]
