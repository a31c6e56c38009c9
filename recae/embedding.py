"""User embeddings for any number of users, a block at a time."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.models.base import Embedder, EmbeddingKind
from recae.progress import Listener, Step, silence

BLOCK_BYTES = 128 * 2**20
"""What a block of dense histories may take: a network may have to densify the rows it reads."""


def embed_users(
    model: Embedder,
    histories: csr_matrix,
    kind: EmbeddingKind = "latent",
    *,
    listener: Listener = silence,
    task: str = "embed",
) -> NDArray[np.float32]:
    """Return a float32 vector for each history, users × dimension."""
    users, items = histories.shape
    rows = max(1, BLOCK_BYTES // (4 * max(items, 1)))
    blocks = []
    for start in range(0, max(users, 1), rows):
        block = histories[start : start + rows]
        blocks.append(model.embed_users(block, kind).cpu().numpy())
        listener(Step(task, min(start + rows, users), users))
    return np.concatenate(blocks)
