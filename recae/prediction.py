"""Predicted values of what is held out, a block of users at a time: never those of all users and items at once."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.errors import Diverged
from recae.ranking import rows_of_whole
from recae.scoring import Score, equal_calls


@runtime_checkable
class Predicts(Protocol):
    """What may have values to predict: see `recae.models.base.ValuePredictor`."""

    @property
    def predicts(self) -> bool:
        """Whether it does."""

    def predict(self, histories: csr_matrix) -> Tensor:
        """Return a value of every item for every history."""


def predictor_of(model: object) -> Score | None:
    """Return what predicts a model's values, users × items, from histories; None for one that only orders items."""
    return model.predict if isinstance(model, Predicts) and model.predicts else None


def predict_held_out(predict: Score, history: csr_matrix, held_out: csr_matrix) -> NDArray[np.float64]:
    """Return the predicted value of each held-out entry, (entries,), in the order of `held_out.data`.

    `predict` maps histories (rows, items) to values (rows, items) on any device; both matrices are users × items, the
    same users in the same order. It is always asked for the same number of rows, so that no prediction depends on who
    else is asked about: see `equal_calls`. Raises Diverged for a prediction that is not finite.
    """
    if history.shape != held_out.shape:
        raise ValueError(f"histories of shape {history.shape}, held-out values of shape {held_out.shape}")
    targets = np.flatnonzero(np.diff(held_out.indptr))
    asked, wanted = history[targets], held_out[targets]
    found = np.empty(wanted.nnz)
    for part, rows in equal_calls(asked, rows_of_whole(held_out.shape[1])):
        with torch.no_grad():
            values = predict(part)
        if values.shape != part.shape:
            raise ValueError(f"values of shape {tuple(values.shape)} for histories of shape {part.shape}")
        first, last = wanted.indptr[[rows.start, rows.stop]]
        row = np.repeat(np.arange(rows.stop - rows.start), np.diff(wanted.indptr[rows.start : rows.stop + 1]))
        cells = (
            torch.as_tensor(place, device=values.device) for place in (row, wanted.indices[first:last].astype(int))
        )
        found[first:last] = values[tuple(cells)].cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        row = targets[np.searchsorted(wanted.indptr, bad[0], side="right") - 1]
        raise Diverged(
            f"the predicted values of user row {row} are not finite: the model diverged; "
            "fit it again with a lower learning rate or more regularisation"
        )
    return found
