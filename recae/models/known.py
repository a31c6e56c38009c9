"""Which row of the training a history is: for models that can only score histories they were trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import CannotFoldIn
from recae.histories import digests

NONE, UNKNOWN = -1, -2
"""The row of a history that is empty, and of one that was not trained on."""


@dataclass(frozen=True, eq=False)
class KnownHistories:
    """The histories of a training, by a digest of each, (users, 16) uint8: see `digests`.

    A history is known by its items, so of two users who trained with the same one the first answers.
    """

    digests: Tensor
    _rows: dict[bytes, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        known = [bytes(digest) for digest in self.digests.cpu().numpy()]
        rows = {digest: row for row, digest in reversed(list(enumerate(known)))}
        object.__setattr__(self, "_rows", rows | dict.fromkeys(digests(csr_matrix((1, 0))), NONE))

    @classmethod
    def of(cls, histories: csr_matrix, device: str | torch.device) -> "KnownHistories":
        """Remember histories."""
        known = np.frombuffer(b"".join(digests(histories)), dtype=np.uint8).reshape(-1, 16)
        return cls(torch.tensor(known, device=device))

    def __len__(self) -> int:
        return len(self.digests)

    def knows(self, histories: csr_matrix) -> NDArray[np.bool_]:
        """Return for each history whether it is known, or empty."""
        known: NDArray[np.bool_] = self._find(histories) != UNKNOWN
        return known

    def rows(self, histories: csr_matrix, model: str, others: Sequence[str]) -> Tensor:
        """Return the row of each history, (users) int64 on the digests' device, NONE for an empty one.

        CannotFoldIn, which names other models to use, unless all of them are known.
        """
        rows = self._find(histories)
        strange = np.flatnonzero(rows == UNKNOWN)
        if len(strange):
            raise CannotFoldIn(
                f"{model} was not trained on the history in row {strange[0]} of these {len(rows)}, and cannot fold in "
                f"a new one; train it on these histories too, or use {', '.join(others[:-1])} or {others[-1]}"
            )
        return torch.tensor(rows, device=self.digests.device)

    def _find(self, histories: csr_matrix) -> NDArray[np.int64]:
        return np.array([self._rows.get(digest, UNKNOWN) for digest in digests(histories)], dtype=np.int64)
