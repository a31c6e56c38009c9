"""Predicted values: what is held out of whom, whoever else is asked about; and what the errors of predictions are."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, vstack
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from recae import prediction
from recae.errors import Diverged, RecipeError
from recae.evaluation import Evaluation, evaluate, require_values, summarise
from recae.metrics import Metric
from recae.prediction import predict_held_out
from recae.ranking import TopN

METRICS = [Metric("rmse"), Metric("mae"), Metric("global_rmse"), Metric("global_mae")]


def drawn(users: int = 50, items: int = 12, seed: int = 0) -> csr_matrix:
    """Return values, some of them zeros that are stored, and users without any."""
    generator = np.random.default_rng(seed)
    there = generator.random((users, items)) < generator.choice([0, 0.2, 0.6], (users, 1))
    user, item = np.nonzero(there)
    values = generator.integers(-4, 5, len(user)) / np.float32(2)
    return csr_matrix((values, item, np.append(0, np.cumsum(there.sum(axis=1)))), shape=there.shape)


def predict(histories: csr_matrix) -> torch.Tensor:
    """Predict from a user's whole history: no two users alike."""
    wide = torch.tensor(histories.toarray())
    return wide.sum(dim=1, keepdim=True) / 7 + torch.arange(wide.shape[1])


def evaluated(predicted: np.ndarray | None, held_out: csr_matrix) -> Evaluation:
    users = held_out.shape[0]
    nothing = TopN(np.zeros((users, 1), np.int32), np.zeros((users, 1), np.float32))
    return evaluate(nothing, csr_matrix(held_out.shape), held_out, METRICS, predicted=predicted)


def test_every_held_out_value_has_its_prediction() -> None:
    history, held_out = drawn(seed=1), drawn(seed=2)
    rows = np.repeat(np.arange(held_out.shape[0]), np.diff(held_out.indptr))
    expected = predict(history).numpy()[rows, held_out.indices]
    np.testing.assert_array_equal(predict_held_out(predict, history, held_out), expected)
    assert predict_held_out(predict, history, csr_matrix(held_out.shape)).shape == (0,)


def test_a_call_never_has_more_than_its_users_and_the_company_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    history, held_out = drawn(seed=1), drawn(seed=2)
    whole, asked = predict_held_out(predict, history, held_out), []

    def counted(histories: csr_matrix) -> torch.Tensor:
        asked.append(histories.shape[0])
        return predict(histories)

    monkeypatch.setattr(prediction, "rows_of_whole", lambda items: 4)
    np.testing.assert_array_equal(predict_held_out(counted, history, held_out), whole)
    targets = np.count_nonzero(np.diff(held_out.indptr))
    assert asked == [4] * -(-targets // 4)


def test_predictions_that_are_not_finite_name_the_user() -> None:
    held_out = csr_matrix(np.array([[0, 0], [0, 3.0]]))
    with pytest.raises(Diverged, match="user row 1 are not finite"):
        predict_held_out(lambda histories: torch.full(histories.shape, torch.nan), csr_matrix((2, 2)), held_out)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="histories of shape"):
        predict_held_out(predict, csr_matrix((2, 3)), csr_matrix((3, 3)))
    with pytest.raises(ValueError, match="values of shape"):
        predict_held_out(lambda histories: torch.zeros(1, 1), csr_matrix((2, 2)), csr_matrix(np.eye(2)))


def test_errors_are_those_of_scikit_learn() -> None:
    held_out = drawn(seed=3)
    predicted = np.random.default_rng(4).normal(size=held_out.nnz)
    found = evaluated(predicted, held_out)
    of_user = [slice(*ends) for ends in zip(held_out.indptr[:-1], held_out.indptr[1:], strict=True)]
    for key, oracle in (("rmse", root_mean_squared_error), ("mae", mean_absolute_error)):
        expected = [oracle(held_out.data[own], predicted[own]) if own.stop > own.start else np.nan for own in of_user]
        np.testing.assert_allclose(found.per_user[key], expected)
    table = summarise(found).set_index("metric")
    assert table["value"]["rmse"] == pytest.approx(found.per_user["rmse"].mean())
    assert table["value"]["global_rmse"] == pytest.approx(root_mean_squared_error(held_out.data, predicted))
    assert table["value"]["global_mae"] == pytest.approx(mean_absolute_error(held_out.data, predicted))
    assert (table["ci_low"] < table["value"]).all()
    assert (table["value"] < table["ci_high"]).all()
    assert set(table["users"]) == {np.count_nonzero(np.diff(held_out.indptr))}


def test_the_interval_of_a_global_figure_is_over_users_drawn_anew() -> None:
    held_out = drawn(users=30, seed=3)
    predicted = np.random.default_rng(4).normal(size=held_out.nnz)
    row = summarise(evaluated(predicted, held_out), resamples=500, seed=5).set_index("metric").loc["global_rmse"]
    users = np.flatnonzero(np.diff(held_out.indptr))
    squares = [np.square(predicted - held_out.data)[held_out.indptr[u] : held_out.indptr[u + 1]] for u in users]
    draws = np.random.default_rng(5).integers(len(users), size=(500, len(users)))
    means = [np.sqrt(np.concatenate([squares[place] for place in draw]).mean()) for draw in draws]
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], np.quantile(means, [0.025, 0.975]))


@given(seed=st.integers(0, 2**20))
def test_users_in_another_order_have_the_same_errors(seed: int) -> None:
    held_out = drawn(users=9, items=5, seed=seed)
    generator = np.random.default_rng(seed)
    predicted, order = generator.normal(size=held_out.nnz), generator.permutation(9)
    there = evaluated(predicted, held_out)
    places = csr_matrix((np.arange(held_out.nnz), held_out.indices, held_out.indptr), shape=held_out.shape)[order]
    here = evaluated(predicted[places.data], held_out[order])
    np.testing.assert_allclose(here.per_user, there.per_user.iloc[order])
    np.testing.assert_allclose(here.pooled["global_rmse"], there.pooled["global_rmse"][order])


@given(seed=st.integers(0, 2**20), shift=st.floats(-3, 3))
def test_a_perfect_prediction_has_no_error_and_one_that_is_off_by_so_much_has_that(seed: int, shift: float) -> None:
    held_out = drawn(seed=seed)
    values = held_out.data.astype(np.float64)
    assert (summarise(evaluated(values, held_out), resamples=5)["value"].dropna() == 0).all()
    off = summarise(evaluated(values + shift, held_out), resamples=5)["value"].dropna()
    np.testing.assert_allclose(off, abs(shift), atol=1e-12)


def test_a_zero_that_is_stored_is_a_value_to_predict() -> None:
    held_out = csr_matrix((np.array([0, 4], np.float32), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    assert evaluated(np.array([2.0, 4.0]), held_out).per_user["mae"].tolist() == [1.0]


def test_without_predictions_there_is_no_figure_and_nobody_it_is_of() -> None:
    table = summarise(evaluated(None, drawn()))
    assert table["value"].isna().all()
    assert table["ci_low"].isna().all()
    assert (table["users"] == 0).all()


def test_values_that_are_all_the_same_are_nothing_to_predict() -> None:
    ones = csr_matrix(np.ones((2, 2)))
    with pytest.raises(RecipeError, match="metric 'rmse' compares values, and every held-out one is 1; keep those"):
        require_values([Metric("ndcg", 5), Metric("rmse")], ones)
    require_values([Metric("ndcg", 5)], ones)
    require_values(METRICS, vstack([ones, 2 * ones], format="csr"))
