"""User embeddings for any number of users, a block at a time."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.models.base import Embedder, EmbeddingKind
from recae.progress import Listener, Step, silence

BLOCK = 1024
"""How many users are embedded at once. Their last bits may depend on who shares a block."""


def embed_users(
    model: Embedder,
    histories: csr_matrix,
    kind: EmbeddingKind = "latent",
    *,
    listener: Listener = silence,
    task: str = "embed",
) -> NDArray[np.float32]:
    """Return a float32 vector for each history, users × dimension."""
    users = histories.shape[0]
    blocks = []
    for start in range(0, max(users, 1), BLOCK):
        block = histories[start : start + BLOCK]
        blocks.append(model.embed_users(block, kind).cpu().numpy())
        listener(Step(task, min(start + BLOCK, users), users))
    return np.concatenate(blocks)
