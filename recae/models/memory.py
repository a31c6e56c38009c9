"""Scores from the users that a history is like: a regression on its similarities to the histories of known ones.

landmarks   known users, L × items: those that others are compared with
image       what another model makes of a history, users × width: two users may be alike in that, too
k           similarities of a history to the landmarks, users × L, less those of an empty history, which are all 1
weights     L × items: scores are (k + 1) · weights
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
from recae.histories import by_length, multiply, presence
from recae.kernels.gram import dense_product
from recae.models.base import require_width
from recae.scoring import Tiles
from recae.tensors import Form, require_tensors

BLOCK = 2**25
"""How many numbers of users × landmarks, or of users × items, are worked on at a time."""

Image = Callable[[csr_matrix], Tensor]

FORMS: Mapping[str, Form] = {
    "indptr": (torch.int64, ("landmarks + 1",)),
    "indices": (torch.int32, ("entries",)),
    "weights": (torch.float32, ("landmarks", "items")),
}
"""What `Memory.state` holds."""


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

    def to(self, landmarks: csr_matrix, device: str | torch.device) -> Callable[[csr_matrix], Tensor]:
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
class Memory:
    """Landmarks, and weights from them to the items."""

    landmarks: csr_matrix
    similarities: Callable[[csr_matrix], Tensor]
    weights: Tensor

    @cached_property
    def base(self) -> Tensor:
        """Return the scores of an empty history, (items)."""
        return self.weights.sum(dim=0, dtype=torch.float64).float()

    @property
    def items(self) -> int:
        """Return the number of items."""
        return self.weights.shape[1]

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items, for histories of ones."""
        return torch.addmm(self.base, self.similarities(histories), self.weights)

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        similar = self.similarities(histories)

        def write(start: int, tile: Tensor) -> None:
            items = slice(start, start + tile.shape[1])
            torch.addmm(self.base[items], similar, self.weights[:, items], out=tile)

        return Tiles(self.weights.device, write)

    def state(self) -> dict[str, Tensor]:
        """Return `indptr` and `indices` of the landmarks, and `weights`."""
        arrays = {"indptr": self.landmarks.indptr.astype(np.int64), "indices": self.landmarks.indices.astype(np.int32)}
        device = self.weights.device
        return {
            **{name: torch.as_tensor(array, device=device) for name, array in arrays.items()},
            "weights": self.weights,
        }


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


def recall(state: Mapping[str, Tensor], likeness: Likeness) -> Memory:
    """Return the memory of a state; ValueError or LookupError where that is none."""
    require_tensors(state, FORMS)
    weights = state["weights"]
    indptr, indices = state["indptr"].cpu().numpy(), state["indices"].cpu().numpy()
    if len(indptr) != len(weights) + 1:
        raise ValueError(f"{len(indptr) - 1} landmarks, and weights of {len(weights)}")
    shape = len(weights), weights.shape[1]
    landmarks = csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=shape)
    landmarks.check_format()  # an index out of bounds would read memory that is none of ours
    return Memory(landmarks, likeness.to(landmarks, weights.device), weights)


def memorise(
    histories: csr_matrix, likeness: Likeness, *, l2: float, exponent: float, count: int, seed: int, device: str
) -> Memory:
    """Return the memory of at most `count` users, drawn at random of those with interactions if there are more.

    The weights are a ridge regression, in float64, from similarities to histories, each times (mean length / its
    length)^exponent, which are X here. With K the similarities between landmarks and K_u those of all users to them,
    they are (K_uᵀK_u + l2·K)⁻¹ K_uᵀX, or (K + l2·I)⁻¹ X where all users are landmarks. ModelError where l2 is too
    small for that.
    """
    known = histories[np.flatnonzero(np.diff(histories.indptr))]
    wanted = by_length(known, exponent)
    users = known.shape[0]
    landmarks = known
    if users > count:
        landmarks = known[np.sort(np.random.default_rng(seed).choice(users, count, replace=False))]
    similarities = likeness.to(landmarks, device)
    step = max(1, BLOCK // max(landmarks.shape))
    parts = [slice(at, at + step) for at in range(0, landmarks.shape[0], step)]
    kernel = torch.cat([similarities(landmarks[part]).double().add_(1) for part in parts])
    if landmarks is known:
        weights = torch.from_numpy(wanted.toarray()).to(device)
        kernel.diagonal().add_(l2)
    else:
        weights = torch.zeros((known.shape[1], len(kernel)), device=device)
        kernel *= l2
        for at in range(0, users, step):
            near = similarities(known[at : at + step]).add_(1)
            weights += multiply(wanted[at : at + step].T.tocsr(), near)
            kernel.addmm_(near.T.double(), near.double())
        weights = weights.T.contiguous()
        kernel.diagonal().add_(1e-9 * float(kernel.diagonal().mean()))
    root, failed = torch.linalg.cholesky_ex(kernel)
    if failed:
        raise ModelError(f"l2 = {l2:g} is too small for users this much alike; raise it")
    del kernel
    for at in range(0, weights.shape[1], step):
        columns = weights[:, at : at + step]
        columns.copy_(torch.cholesky_solve(columns.double(), root))
    return Memory(landmarks, similarities, weights)


def memory_needed(users: int, items: int, landmarks: int, blocks: int = 0) -> int:
    """Return the bytes that `memorise` takes, with an image of `blocks` vectors of the items' width."""
    kept = min(users, landmarks)
    return 16 * kept**2 + (8 + 4 * blocks) * kept * items + 8 * BLOCK
