"""The logits of users × items, a tile of items at a time: what kernels over the whole catalogue share.

A tile's logits stay in a cache from the matrix product that makes them to the last of what is done to them, and there
is never more than a tile of them.

users × items: the logits. interactions: those of the users, as in a `Batch`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 2**19
"""How many logits are in work at a time: 2 MiB of them stay in a cache. Whole, the first product of 500 users and
20,108 items takes half as long again, because its result goes through memory."""

NARROWEST = 256
"""How many items a tile has at least: matrix products of fewer columns are slower."""

ALIGNED = 16
"""Rows of a tile begin at whole multiples of so many logits, a cache line of them: the first product of 500 users and
3,497 items takes 37 ms into rows of 3,497 logits, 23 ms into rows of 3,504 (one core)."""

KEPT = 2**28
"""Up to how many bytes an array of users × items is kept for the backward pass. A larger one is computed again, from a
fourth product beside three, so that memory does not depend on the number of items."""


@dataclass(frozen=True, eq=False)
class Tile:
    """A run of items, and the interactions with them; `stride` is the items' number, padded to whole ALIGNED."""

    items: slice
    interactions: slice
    users: int
    stride: int

    def of(self, buffer: Tensor) -> Tensor:
        """Return users × stride from the start of a flat buffer."""
        return buffer[: self.users * self.stride].view(self.users, self.stride)

    def of_all(self, buffer: Tensor) -> Tensor:
        """Return this tile's users × stride from a flat buffer that has room for all tiles."""
        return self.of(buffer[self.users * self.items.start :])

    @property
    def width(self) -> int:
        """Return the number of items."""
        return int(self.items.stop - self.items.start)


def tiles_of(users: int, catalogue: int, rows: Tensor, items: Tensor) -> tuple[list[Tile], Tensor, Tensor]:
    """Return the tiles, the order of the interactions in them, and the place of each in its tile, in that order.

    catalogue: how many items there are; rows and items (interactions) int64, the users and the items of interactions.
    """
    count = max(1, -(-catalogue // max(NARROWEST, TILE // max(users, 1))))
    width = aligned(-(-catalogue // count))
    count = max(1, -(-catalogue // width))
    number = items // width
    strides = torch.where(number < count - 1, width, aligned(catalogue - (count - 1) * width))
    places = rows * strides + items - number * width
    # In half the bytes, sorted in half the time.
    number, order = torch.sort(number.int(), stable=True)
    bounds = [0] * (count + 1)
    if len(items):  # to read bounds, the processor waits for the device
        bounds = torch.searchsorted(number, torch.arange(count + 1, dtype=torch.int32, device=number.device)).tolist()
    tiles = [
        Tile(
            slice(start, min(start + width, catalogue)),
            slice(begin, end),
            users,
            min(width, aligned(catalogue - start)),
        )
        for start, begin, end in zip(range(0, catalogue, width), bounds, bounds[1:], strict=False)
    ]
    return tiles, order, places.index_select(0, order)


def aligned(size: int) -> int:
    """Return a size, padded to whole ALIGNED."""
    return -(-size // ALIGNED) * ALIGNED


def may_keep(users: int, weight: Tensor) -> bool:
    """Return whether a backward pass may come, and users × items, for a weight (items, width), is small enough for it
    to be kept."""
    return users * len(weight) * weight.element_size() <= KEPT and torch.is_grad_enabled()


def sum_by_user(users: int, rows: Tensor, amounts: Tensor) -> Tensor:
    """Return the sum of an amount per interaction over those of each user, (users)."""
    return amounts.new_zeros(users).index_add(0, rows, amounts)
