"""User embeddings for any number of users, a block at a time."""

from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.errors import CannotEmbed
from recae.models.base import Embedder, EmbeddingKind
from recae.progress import Listener, Step, silence
from recae.scoring import ROWS_PER_CALL, device_of, equal_calls


def kinds_of(unfitted: object) -> tuple[EmbeddingKind, ...]:
    """Return which vectors of users a model has once it is fitted; items have vectors where users have both kinds."""
    if not hasattr(unfitted, "embed_items"):
        return ()
    try:
        unfitted.embed_items()
    except CannotEmbed:
        return ("latent",)
    except AttributeError:
        pass  # it would have them, and is not fitted
    return get_args(EmbeddingKind)


def embed_users(
    model: Embedder,
    histories: csr_matrix,
    kind: EmbeddingKind = "latent",
    *,
    listener: Listener = silence,
    task: str = "embed",
) -> NDArray[np.float32]:
    """Return a float32 vector for each history, users × dimension; it depends on no other, to the last bit."""
    users = histories.shape[0]
    vectors = np.empty((users, model.embed_users(histories[:0], kind).shape[1]), dtype=np.float32)
    for part, rows in equal_calls(histories, ROWS_PER_CALL[device_of(model).type]):
        vectors[rows] = model.embed_users(part, kind)[: rows.stop - rows.start].cpu().numpy()
        listener(Step(task, rows.stop, users))
    return vectors
