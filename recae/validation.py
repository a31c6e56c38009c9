"""What a training is judged by while it goes on."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.metrics import Metric, find_hits, measure_users, measure_values, sum_errors
from recae.prediction import predict_held_out, predictor_of
from recae.ranking import top_n

WATCHED = Metric("ndcg", 100)
"""What a training is judged by where nothing asks for another metric."""


class Scores(Protocol):
    """A model that orders items."""

    def score(self, histories: csr_matrix) -> Tensor:
        """Return a score of every item for every history."""


@dataclass(frozen=True)
class Validation:
    """Histories to score and the held-out items to find in them; both users × items, the same users in order.

    `watched` is the metric, of each user, by which a training is judged: the best epoch is that with the best mean.
    """

    history: csr_matrix
    held_out: csr_matrix
    watched: Metric = WATCHED

    def measure(self, model: Scores) -> float:
        """Return the mean of the watched metric over the users with a target, of a model as it is now.

        ValueError where that is a metric of values, and the model has none to predict: see `watched_by`.
        """
        targets = np.diff(self.held_out.indptr)
        if not targets.any():
            raise ValueError("validation without a held-out item")
        if self.watched.is_of_values:
            predict = predictor_of(model)
            if predict is None:
                raise ValueError(f"{model!r} predicts no values, and {self.watched} is to be watched")
            errors = predict_held_out(predict, self.history, self.held_out) - self.held_out.data
            of_users = measure_values(self.watched, sum_errors(self.watched, errors, targets), targets)
        else:
            top = top_n(model.score, self.history, self.watched.k)
            of_users = measure_users(self.watched, find_hits(top.items, self.held_out), targets)
        return float(np.nanmean(of_users))


@runtime_checkable
class ObservedOnly(Protocol):
    """A model that can be told to learn from observed values alone, items outside of a history having no weight."""

    unseen: float


def watched_by(model: object, main: Metric = WATCHED) -> Metric:
    """Return the metric by which a model's training is to be judged, where `main` is the first that is asked for.

    That is `main` where each user has a figure of it that the model can be asked for, and otherwise WATCHED; but rmse
    where a model learns from observed values alone, which does not teach it who touches what.
    """
    predicts = predictor_of(model) is not None
    if main.is_of_values and predicts:
        return main
    if predicts and isinstance(model, ObservedOnly) and model.unseen == 0:
        return Metric("rmse")
    return WATCHED if main.is_of_values or not main.is_per_user else main
