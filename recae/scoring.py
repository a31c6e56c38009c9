"""How ranking gets its scores: those of the whole catalogue at once, or a tile of columns at a time.

rows, items: the shape of the histories. columns: those of a tile. dimension: that of vectors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

Score = Callable[[csr_matrix], Tensor]
"""Maps histories to scores, (rows, items), on any device."""

ROWS_PER_CALL = {"cpu": 128, "cuda": 1024}
"""How many histories a model reads in one call, always: see `equal_calls`. A CPU's products gain little above it."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """The scores of some histories, to be had a tile at a time.

    `write(start, tile)` fills a tile (rows, columns), contiguous float32 on `device`, with those from column `start`.
    """

    device: torch.device
    write: Callable[[int, Tensor], object]


class Learned(Protocol):
    """What keeps all it learned on one device."""

    def state(self) -> dict[str, Tensor]:
        """Return everything `fit` learned."""


@runtime_checkable
class ScoresByTile(Learned, Protocol):
    """A recommender that can give its scores by tile, so that a ranking never holds those of the whole catalogue."""

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return `score(histories)` as tiles: the same scores, but for their last bits."""


def by_tile(score: Score) -> ScoresByTile | None:
    """Return the model whose `score` this is, if it can score by tile."""
    model = getattr(score, "__self__", None)
    return model if isinstance(model, ScoresByTile) and score == model.score else None


def device_of(model: Learned) -> torch.device:
    """Return the device of what a model learned."""
    return next(iter(model.state().values())).device


def equal_calls(histories: csr_matrix, rows: int) -> Iterator[tuple[csr_matrix, slice]]:
    """Cut histories into parts of exactly so many rows; yield each, and which histories its first rows are.

    A matrix product may give a row other last bits when it has other rows for company. A call that is short of rows
    is filled by repeating them. (Measured with MKL, float32, AVX2: among calls of 1 to 1,100 rows, a row's bits differ
    where it is one of the last one to three of a call whose length is no multiple of 4; with AVX-512, of three rows
    the last may differ from the first. On a GPU the length may choose another kernel altogether.)
    """
    users = histories.shape[0]
    for start in range(0, users, rows):
        wanted = slice(start, min(start + rows, users))
        part = histories[wanted]
        count = wanted.stop - start
        yield (part if count == rows else part[np.resize(np.arange(count), rows)]), wanted


def inner_products(users: Tensor, items: Tensor, bias: Tensor | None = None) -> Tiles:
    """Return users @ items.T + bias as tiles: vectors (rows, dimension) and (items, dimension), bias (items)."""

    def write(start: int, tile: Tensor) -> None:
        stop = start + tile.shape[1]
        if bias is None:
            torch.mm(users, items[start:stop].T, out=tile)
        else:
            torch.addmm(bias[start:stop], users, items[start:stop].T, out=tile)

    return Tiles(items.device, write)


def slices_of(scores: Tensor) -> Tiles:
    """Return the scores of a whole catalogue as tiles."""
    return Tiles(scores.device, lambda start, tile: tile.copy_(scores[:, start : start + tile.shape[1]]))
