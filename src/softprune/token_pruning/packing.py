"""Texts of a batch laid end to end without padding, and the buckets in which their attention is computed.

Texts of similar length share a bucket, long ones stand alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from softprune.token_pruning.rules import key_of

WASTE = 0.12
"""Share of a bucket that may be padding; a kernel launched is dearer on a GPU."""
WASTE_ON_GPU = 1.0
CACHED = 1 << 14
"""A head's attention probabilities in one bucket at most, unless one text alone has more: on a CPU all heads' stay in a
cache, and texts of more than a hundred tokens stand alone, without an index or a mask."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Token ids of some texts, end to end.

    Attributes:
        ids_M: all ids.
        position_M: each token's place in its text.
        row_M: each token's text.
        lengths: tokens of each text.
        keys: `rules.key_of` each.
    """

    ids_M: torch.Tensor
    position_M: torch.Tensor
    row_M: torch.Tensor
    lengths: tuple[int, ...]
    keys: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lengths)


def pack(texts: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Packed:
    """Lay the token ids of some texts end to end."""
    lengths = tuple(map(len, texts))
    sizes = torch.tensor(lengths)
    row_M = torch.arange(len(texts)).repeat_interleave(sizes)
    position_M = torch.arange(int(sizes.sum())) - (sizes.cumsum(0) - sizes)[row_M]
    ids_M = torch.tensor([i for ids in texts for i in ids])
    keys = tuple(map(key_of, texts))
    return Packed(ids_M.to(device), position_M.to(device), row_M.to(device), lengths, keys)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Texts whose attention is computed in one call.

    Attributes:
        rows: the texts.
        index_BN: where their tokens are in the packed ones, 0 where padded; None if they lie in one piece.
        begin: of that piece.
        valid_BN: False in padding; None where there is none.
        size: B and N.
    """

    rows: tuple[int, ...]
    index_BN: torch.Tensor | None
    begin: int
    valid_BN: torch.Tensor | None
    size: tuple[int, int]

    def take(self, x_MI: torch.Tensor, heads: int) -> torch.Tensor:
        """`[M, heads * D]` to `[B, heads, N, D]`."""
        batch, longest = self.size
        if self.index_BN is None:
            taken = x_MI[self.begin : self.begin + batch * longest].view(batch, longest, heads, -1)
        else:
            taken = x_MI[self.index_BN].view(batch, longest, heads, -1)
        # Contiguous: batched products of strided matrices take twice as long.
        return taken.transpose(1, 2).contiguous()

    def spread(self, x_M: torch.Tensor) -> torch.Tensor:
        """`[M]` to `[B, N]`."""
        if self.index_BN is None:
            return x_M[self.begin : self.begin + self.size[0] * self.size[1]].view(self.size)
        return x_M[self.index_BN]

    def put(self, part_BNI: torch.Tensor, whole_MI: torch.Tensor) -> None:
        """Write what `[B, N, ...]` has for the bucket's tokens to their places in `[M, ...]`."""
        if self.index_BN is None:
            piece = whole_MI[self.begin : self.begin + self.size[0] * self.size[1]]
            piece.view(part_BNI.shape).copy_(part_BNI)
        else:
            whole_MI[self.tokens(self.index_BN)] = self.tokens(part_BNI)

    def tokens(self, part_BNI: torch.Tensor) -> torch.Tensor:
        """`[B, N, ...]` to `[M, ...]`, without padding."""
        return part_BNI.flatten(0, 1) if self.valid_BN is None else part_BNI[self.valid_BN]


def buckets(lengths: Sequence[int], device: torch.device, waste: float | None = None) -> list[Bucket]:
    """Group texts of similar length.

    Args:
        lengths: of the texts, as they lie end to end.
        device: for the index.
        waste: padding at most, as a share of the tokens.
    """
    waste = (WASTE_ON_GPU if device.type == "cuda" else WASTE) if waste is None else waste
    begins = [0]
    for length in lengths:
        begins.append(begins[-1] + length)
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    found: list[Bucket] = []
    group: list[int] = []
    real = 0
    for row in order:
        longest = lengths[group[0]] if group else lengths[row]
        size = longest * (len(group) + 1)
        full = device.type != "cuda" and size * longest > CACHED
        if group and (full or size > (1 + waste) * (real + lengths[row])):
            found.append(_bucket(group, lengths, begins, device))
            group, real = [], 0
        group.append(row)
        real += lengths[row]
    return [*found, _bucket(group, lengths, begins, device)] if group else []


def _bucket(rows: Sequence[int], lengths: Sequence[int], begins: Sequence[int], device: torch.device) -> Bucket:
    batch, longest = len(rows), lengths[rows[0]]
    even = lengths[rows[-1]] == longest
    together = even and list(rows) == list(range(rows[0], rows[0] + batch))
    begin = begins[rows[0]]
    if together:
        return Bucket(tuple(rows), None, begin, None, (batch, longest))
    place_BN = torch.arange(longest).expand(batch, -1)
    valid_BN = place_BN < torch.tensor([lengths[row] for row in rows])[:, None]
    index_BN = torch.where(valid_BN, place_BN + torch.tensor([begins[row] for row in rows])[:, None], 0).to(device)
    return Bucket(tuple(rows), index_BN, begin, None if even else valid_BN.to(device), (batch, longest))


def places_of(groups: Sequence[Bucket]) -> torch.Tensor | None:
    """Where the tokens of the buckets, laid end to end without padding, belong; None if they lie there already."""
    begin = 0
    for group in groups:
        if group.index_BN is not None or group.begin != begin:
            break
        begin += group.size[0] * group.size[1]
    else:
        return None
    return torch.cat([_index(group) for group in groups])


def _index(group: Bucket) -> torch.Tensor:
    batch, longest = group.size
    if group.index_BN is None:
        return torch.arange(group.begin, group.begin + batch * longest)
    return group.tokens(group.index_BN)


def back(parts: Sequence[torch.Tensor], groups: Sequence[Bucket], places: torch.Tensor | None) -> torch.Tensor:
    """Rows of the buckets, each `[B * N, ...]`, to packed order, without padding; `places` from `places_of`."""
    if places is None:
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))
    whole = [group.tokens(part.unflatten(0, group.size)) for part, group in zip(parts, groups, strict=True)]
    joined = torch.cat(whole)
    places = places.to(joined.device)
    inverse = torch.empty_like(places).scatter_(0, places, torch.arange(len(places), device=places.device))
    return joined[inverse]
