"""Folding in many histories at once is folding in each by itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recae.models import als
from recae.models.als import ALS


def drawn(lengths, items, seed):
    """Return histories of these lengths, with weights of every kind."""
    rng = np.random.default_rng(seed)
    columns = [np.sort(rng.choice(items, length, replace=False)) for length in lengths]
    values = rng.choice([-2.0, 0.05, 1.0, 4.0], sum(lengths)).astype(np.float32)
    return csr_matrix((values, np.concatenate(columns), np.cumsum([0, *lengths])), shape=(len(lengths), items))


def model(factors, items, seed):
    vectors = np.random.default_rng(seed).normal(size=(items, factors)).astype(np.float32) / 3
    return ALS(factors=factors, regularization=2.0, alpha=7.0).restore({"item_factors": torch.from_numpy(vectors)})


def obvious_fold_in(model, histories):
    """Solve the normal equations of each history, one after the other: the slow twin."""
    items = model.item_factors_.double().numpy()
    everything = items.T @ items + model.regularization * np.eye(items.shape[1])
    found = []
    for row in histories:
        weights, own = model.alpha * row.data.astype(np.float64), items[row.indices]
        left = everything + own.T @ ((np.abs(weights) - 1)[:, None] * own)
        found.append(np.linalg.solve(left, own.T @ np.maximum(weights, 0)))
    return np.array(found).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=12),
    factors=st.sampled_from([1, 5, 24, 64]),
    together=st.sampled_from([1, 100, als.TOGETHER]),
    seed=st.integers(0, 2**32 - 1),
)
def test_folding_in_is_solving_for_each_history(lengths, factors, together, seed):
    histories, fitted = drawn(lengths, 100, seed), model(factors, 100, seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(als, "TOGETHER", together)
        vectors = fitted.embed_users(histories).numpy()
    np.testing.assert_allclose(vectors, obvious_fold_in(fitted, histories), rtol=1e-4, atol=1e-5)
    assert not vectors[np.array(lengths) == 0].any()


def test_a_history_is_folded_in_to_the_same_bits_in_any_company():
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(0, 200, 150), 700, 1500]
    histories, fitted = drawn(lengths, 2000, 1), model(64, 2000, 2)
    weights = histories.astype(np.float64)
    solved = als.solve(fitted.whitened_, weights)
    for rows in (rng.permutation(152), [3], [151, 3, 150], range(0, 152, 7)):
        assert torch.equal(als.solve(fitted.whitened_, weights[rows]), solved[list(rows)])


def test_histories_are_padded_by_an_eighth_at_most():
    lengths = np.arange(1, 5000)
    padded = als._padded(lengths)
    assert (padded >= lengths).all()
    assert (padded - lengths < np.maximum(als.SHORTEST, lengths / 8)).all()
    assert len(np.unique(padded)) < 60
