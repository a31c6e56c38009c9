"""Scores from the users that a history is like: a regression on its similarities to the histories of known ones.

landmarks   known users, L × items: those that others are compared with
image       what another model makes of a history, users × width: two users may be alike in that, too
k           similarities of a history to the landmarks, users × L, less those of an empty history, which are all 1
weights     L × items: scores are (k + 1) · weights
inverse     L × L, of the kernel between landmarks: where items are more than these, weights are never made, as they
            are inverse · X for the landmarks' weighed histories X, which are sparse
"""

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import ModelError
from recae.histories import multiply, presence
from recae.kernels import inverse
from recae.kernels.gram import dense_product
from recae.models.base import require_width
from recae.scoring import Tiles
from recae.tensors import Form, require_tensors

BLOCK = 2**25
"""How many numbers of users × landmarks, or of users × items, are worked on at a time."""

Image = Callable[[csr_matrix], Tensor]
Similarities = Callable[[csr_matrix], Tensor]
"""Makes k of histories of ones, users × L, a new tensor each time."""

Target = Callable[[csr_matrix], csr_matrix]
"""Maps histories of ones to what is to be reconstructed, where each entry has a weight."""

SOME, ALL = 5000, 2**15
"""How many users are landmarks at most, unless told: of users who outnumber the items, and of others."""

MOST_L2 = 20.0
"""The largest l2, unless told: that of MovieLens-1M, where anything from 10 to 60 does as well (docs/LOG.md)."""

TOLERANCE = 1e-3
"""The largest error of an inverse in float32 that will do."""

LANDMARKS: Mapping[str, Form] = {
    "indptr": (torch.int64, ("landmarks + 1",)),
    "indices": (torch.int32, ("entries",)),
}
WEIGHTS: Mapping[str, Form] = {"weights": (torch.float32, ("landmarks", "items"))}
INVERSE: Mapping[str, Form] = {"inverse": (torch.float32, ("landmarks", "landmarks")), "items": (torch.int64, ())}


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike two histories are: exp(sharpness · cosine), where `scale` (items) says how much each item counts.

    With an image, which is `blocks` vectors of unit length side by side, the cosine is the mean of that between the
    histories and of those between the blocks.
    """

    sharpness: float
    scale: NDArray[np.float32]
    image: Image | None = None
    blocks: int = 0

    def to(self, landmarks: csr_matrix, device: str | torch.device) -> Similarities:
        """Return what makes k of histories of ones, on a device in float32."""
        by_item = self._unit(landmarks).T.tocsr()
        image, near = self.image, None
        if image is not None:
            step = max(1, BLOCK // landmarks.shape[1])
            near = torch.cat([image(landmarks[at : at + step]) for at in range(0, landmarks.shape[0], step)])

        def similarities(histories: csr_matrix) -> Tensor:
            cosines = dense_product(self._unit(histories), by_item).to(device)
            if image is not None and near is not None:
                cosines.addmm_(image(histories), near.T)
            return cosines.mul_(self.sharpness / (1 + self.blocks)).expm1_()

        return similarities

    def _unit(self, histories: csr_matrix) -> csr_matrix:
        """Return histories of ones with the items' scale for values, each history of unit length."""
        values = self.scale[histories.indices]
        users = np.repeat(np.arange(histories.shape[0]), np.diff(histories.indptr))
        lengths = np.sqrt(np.bincount(users, values.astype(np.float64) ** 2, minlength=histories.shape[0]))
        values = (values / lengths[users]).astype(np.float32)
        return csr_matrix((values, histories.indices, histories.indptr), shape=histories.shape)


@dataclass(frozen=True, eq=False)
class Weights:
    """An output layer in full: weights from the landmarks to the items."""

    weights: Tensor

    @property
    def items(self) -> int:
        """Return the number of items."""
        return self.weights.shape[1]

    @cached_property
    def base(self) -> Tensor:
        """Return the scores of an empty history, (items)."""
        return self.weights.sum(dim=0, dtype=torch.float64).float()

    def read(self, similar: Tensor) -> Tensor:
        """Return what `write` takes, given k."""
        return similar

    def write(self, read: Tensor, start: int, tile: Tensor) -> None:
        """Fill a tile with the scores from an item on."""
        items = slice(start, start + tile.shape[1])
        torch.addmm(self.base[items], read, self.weights[:, items], out=tile)

    def state(self) -> dict[str, Tensor]:
        """Return `weights`."""
        return {"weights": self.weights}


@dataclass(frozen=True, eq=False)
class Inverse:
    """An output layer in two steps, of which one is sparse: how much of each landmark's history there is in a score."""

    inverse: Tensor
    by_item: csr_matrix

    @property
    def items(self) -> int:
        """Return the number of items."""
        return int(self.by_item.shape[0])

    @cached_property
    def base(self) -> Tensor:
        """Return how much there is for an empty history, (L)."""
        return self.inverse.sum(dim=0, dtype=torch.float64).float()

    def read(self, similar: Tensor) -> Tensor:
        """Return what `write` takes, given k: L × users, as the product of a sparse matrix and a dense one wants it."""
        return torch.addmm(self.base, similar, self.inverse).T.contiguous()

    def write(self, read: Tensor, start: int, tile: Tensor) -> None:
        """Fill a tile with the scores from an item on."""
        tile.copy_(multiply(self.by_item[start : start + tile.shape[1]], read).T)

    def state(self) -> dict[str, Tensor]:
        """Return `inverse`, and the number of `items`."""
        return {"inverse": self.inverse, "items": torch.tensor(self.items, device=self.inverse.device)}


@dataclass(frozen=True, eq=False)
class Memory:
    """Landmarks, what makes similarities to them, and what makes scores of these."""

    landmarks: csr_matrix
    similarities: Similarities
    output: Weights | Inverse

    @property
    def items(self) -> int:
        """Return the number of items."""
        return self.output.items

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items, for histories of ones."""
        tiles = self.score_by_tile(histories)
        scores = torch.empty(histories.shape, device=tiles.device)
        tiles.write(0, scores)
        return scores

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        read = self.output.read(self.similarities(histories))
        return Tiles(read.device, lambda start, tile: self.output.write(read, start, tile))

    def state(self) -> dict[str, Tensor]:
        """Return `indptr` and `indices` of the landmarks, and either `weights` or `inverse`."""
        output = self.output.state()
        device = next(iter(output.values())).device
        arrays = {"indptr": self.landmarks.indptr.astype(np.int64), "indices": self.landmarks.indices.astype(np.int32)}
        return {**{name: torch.as_tensor(array, device=device) for name, array in arrays.items()}, **output}


class RemembersUsers(ABC):
    """A recommender whose scores are those of its memory."""

    name: ClassVar[str]
    folds_in: ClassVar[bool] = True

    memory_: Memory

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        require_width(histories, self.memory_.items, self.name)
        return self.memory_.score(presence(histories))

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        require_width(histories, self.memory_.items, self.name)
        return self.memory_.score_by_tile(presence(histories))


def forms(state: Mapping[str, Tensor]) -> dict[str, Form]:
    """Return what a state of `Memory` is to hold, by which of the two outputs it has."""
    return {**LANDMARKS, **(INVERSE if "inverse" in state else WEIGHTS)}


def items_of(state: Mapping[str, Tensor]) -> int:
    """Return the number of items that the state of a `Memory` is of; ValueError where it is the state of none."""
    require_tensors(state, forms(state))
    return int(state["items"]) if "inverse" in state else state["weights"].shape[1]


def recall(state: Mapping[str, Tensor], likeness: Likeness, target: Target) -> Memory:
    """Return the memory of a state, by `likeness` and `target` of `memorise`; ValueError where that is none."""
    items, whole = items_of(state), "weights" in state
    output = state["weights" if whole else "inverse"]
    indptr, indices = state["indptr"].cpu().numpy(), state["indices"].cpu().numpy()
    if len(indptr) != len(output) + 1:
        raise ValueError(f"{len(indptr) - 1} landmarks, and an output layer of {len(output)}")
    if items != len(likeness.scale):
        raise ValueError(f"an output layer for {items} items of {len(likeness.scale)}")
    landmarks = csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(len(output), items))
    landmarks.check_format()  # an index out of bounds would read memory that is none of ours
    similarities = likeness.to(landmarks, output.device)
    return Memory(landmarks, similarities, Weights(output) if whole else Inverse(output, target(landmarks).T.tocsr()))


def memorise(
    histories: csr_matrix,
    likeness: Likeness,
    *,
    l2: float | None,
    setting: str,
    target: Target,
    count: int | None,
    seed: int,
    device: str,
) -> Memory:
    """Return the memory of `landmarks_of(…, count)` users, drawn at random of those with interactions if they are more.

    Where l2 is None it is the mean number of users of an item, at most MOST_L2: the fewer there are, the less have
    users who are like a history in common with others.

    The weights are a ridge regression from similarities to the histories' `target`, which is X here. With K the
    similarities between landmarks and K_u those of all users to them, they are (K_uᵀK_u + l2·K)⁻¹ K_uᵀX, or
    (K + l2·I)⁻¹ X where all users are landmarks. They are found in float64, but for the inverse that takes their place
    where it is smaller. ModelError where l2 is too small for that, which names the `setting` that it comes from.
    """
    known = histories[np.flatnonzero(np.diff(histories.indptr))]
    users, items = known.shape
    if l2 is None:
        l2 = min(MOST_L2, known.nnz / max(1, len(np.unique(known.indices))))
    count = landmarks_of(users, items, count)
    landmarks = known
    if users > count:
        landmarks = known[np.sort(np.random.default_rng(seed).choice(users, count, replace=False))]
    similarities = likeness.to(landmarks, device)
    output: Weights | Inverse | None
    if _dual(users, items, count):
        output = _inverse(landmarks, similarities, l2, target, device)
    else:
        output = _weights(known, landmarks, similarities, l2, target, device)
    if output is None:
        raise ModelError(f"{setting} = {l2:g} is too small for users this much alike; raise it")
    return Memory(landmarks, similarities, output)


def _inverse(
    landmarks: csr_matrix, similarities: Similarities, l2: float, target: Target, device: str
) -> Inverse | None:
    """Return the inverse of the kernel between landmarks, in float32, or None where that is too far off."""
    kernel = _kernel(landmarks, similarities, torch.float32, device)
    kernel.diagonal().add_(l2)
    if inverse.invert(kernel) > TOLERANCE:
        return None
    return Inverse(kernel, target(landmarks).T.tocsr())


def _weights(
    known: csr_matrix, landmarks: csr_matrix, similarities: Similarities, l2: float, target: Target, device: str
) -> Weights | None:
    """Return the weights of a regression on all known users, solved for in float64, or None where that fails."""
    kernel = _kernel(landmarks, similarities, torch.float64, device)
    wanted = target(known)
    (users, items), count = known.shape, landmarks.shape[0]
    step = max(1, BLOCK // max(landmarks.shape))
    if landmarks is known:
        weights = torch.from_numpy(wanted.toarray()).to(device)
        kernel.diagonal().add_(l2)
    else:
        weights = torch.zeros((items, count), device=device)
        kernel *= l2
        for at in range(0, users, step):
            near = similarities(known[at : at + step]).add_(1)
            weights += multiply(wanted[at : at + step].T.tocsr(), near)
            kernel.addmm_(near.T.double(), near.double())
        weights = weights.T.contiguous()
        kernel.diagonal().add_(1e-9 * float(kernel.diagonal().mean()))
    root, failed = torch.linalg.cholesky_ex(kernel)
    if failed:
        return None
    del kernel
    for at in range(0, items, step):
        columns = weights[:, at : at + step]
        columns.copy_(torch.cholesky_solve(columns.double(), root))
    return Weights(weights)


def _kernel(landmarks: csr_matrix, similarities: Similarities, dtype: torch.dtype, device: str) -> Tensor:
    """Return the kernel between landmarks, L × L."""
    count = landmarks.shape[0]
    kernel = torch.empty((count, count), dtype=dtype, device=device)
    step = max(1, BLOCK // max(landmarks.shape))
    for at in range(0, count, step):
        torch.add(similarities(landmarks[at : at + step]), 1, out=kernel[at : at + step])
    return kernel


def landmarks_of(users: int, items: int, count: int | None) -> int:
    """Return how many of the users are landmarks.

    At most `count`; where that is None all, up to ALL, if items are more than users, and otherwise at most SOME. Where
    users have few of many items, those that are like a history are few, and it takes all to find them.
    """
    if count is None:
        count = ALL if users <= min(items, ALL) else SOME
    return min(users, count)


def memory_needed(users: int, items: int, count: int | None, device: str, blocks: int = 0) -> int:
    """Return the bytes that `memorise` takes, with an image of `blocks` vectors of the items' width."""
    kept = landmarks_of(users, items, count)
    square = inverse.memory_needed(kept, device) if _dual(users, items, kept) else 16 * kept**2 + 8 * kept * items
    return square + 4 * blocks * kept * items + 8 * BLOCK


def _dual(users: int, items: int, landmarks: int) -> bool:
    """Return whether the inverse between the landmarks is kept, in the place of weights from them to the items."""
    return landmarks == users < items
