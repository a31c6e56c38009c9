"""EDLAE and RDLAE next to the formulas of its papers, and to figures that an independent implementation measured."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, random_array
from test_ease import figures, read_strong_split

from recae.errors import ModelError
from recae.models.ease import EASE
from recae.models.edlae import EDLAE
from recae.models.rdlae import RDLAE

seeds = st.integers(0, 2**32 - 1)
rates = st.floats(0, 0.9)


def histories(seed: int) -> csr_matrix:
    return csr_matrix(random_array((30, 12), density=0.4, rng=np.random.default_rng(seed)) > 0)


def best_columns(seen: csr_matrix, l2: float, dropout: float, own: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve for each column of B by itself, its diagonal entry given: least squares under one constraint."""
    dense = seen.toarray().astype(np.float64)
    gram = dense.T @ dense
    matrix = gram + np.diag(l2 + dropout / (1 - dropout) * np.diag(gram))
    weights = np.zeros_like(gram)
    for item in range(len(gram)):
        others = np.arange(len(gram)) != item
        pull = gram[others, item] - matrix[others, item] * own[item]
        weights[others, item] = np.linalg.solve(matrix[np.ix_(others, others)], pull)
        weights[item, item] = own[item]
    return weights


@given(seed=seeds, l2=st.floats(0.1, 1000), dropout=rates)
def test_without_relaxation_it_is_the_least_squares_solution_with_a_zero_diagonal(
    seed: int, l2: float, dropout: float
) -> None:
    seen = histories(seed)
    weights = best_columns(seen, l2, dropout, np.zeros(12))
    for model in (EDLAE(l2=l2, dropout=dropout), RDLAE(l2=l2, dropout=dropout, relaxation=0.0)):
        np.testing.assert_allclose(model.fit(seen).state()["weights"].numpy(), weights, rtol=1e-4, atol=1e-6)


@given(seed=seeds, l2=st.floats(0.1, 1000), dropout=rates, relaxation=rates)
def test_the_diagonal_is_what_it_would_be_without_a_bound_or_the_bound(
    seed: int, l2: float, dropout: float, relaxation: float
) -> None:
    seen = histories(seed)
    dense = seen.toarray().astype(np.float64)
    gram = dense.T @ dense
    free = np.linalg.solve(gram + np.diag(l2 + dropout / (1 - dropout) * np.diag(gram)), gram)
    own = np.minimum(np.diag(free), relaxation)
    model = RDLAE(l2=l2, dropout=dropout, relaxation=relaxation).fit(seen)
    weights = best_columns(seen, l2, dropout, own)
    np.testing.assert_allclose(model.state()["weights"].numpy(), weights, rtol=1e-4, atol=1e-6)


def test_with_neither_dropout_nor_relaxation_it_is_ease() -> None:
    seen = histories(3)
    ease, rdlae = EASE(l2=5.0).fit(seen), RDLAE(l2=5.0, dropout=0.0, relaxation=0.0).fit(seen)
    np.testing.assert_array_equal(rdlae.state()["weights"].numpy(), ease.state()["weights"].numpy())


@given(seed=seeds, dropout=st.floats(0.1, 0.8))
def test_dropout_is_what_histories_with_a_share_left_out_teach_on_average(seed: int, dropout: float) -> None:
    # Of Z, X with each entry kept with chance q and then divided by q: E ZᵀZ is XᵀX with p/q times its diagonal on top.
    seen = histories(seed).toarray().astype(np.float64)
    kept = 1 - dropout
    expected = seen.T @ seen
    np.fill_diagonal(expected, np.diag(expected) / kept)
    users = seen.sum(axis=0)
    penalties = RDLAE(l2=1.0, dropout=dropout).penalties
    added = penalties(torch.from_numpy(users)).numpy() - 1.0
    np.testing.assert_allclose(np.diag(seen.T @ seen) + added, np.diag(expected))


@pytest.mark.parametrize("setting", ["dropout", "relaxation"])
def test_a_share_of_one_is_refused(setting: str) -> None:
    with pytest.raises(ModelError, match=f"rdlae: {setting} = 1.0: input should be less than 1"):
        RDLAE(**{setting: 1.0})


@pytest.mark.real_data
def test_figures_on_movielens_equal_those_of_an_independent_implementation(real_data: Callable[[str], Path]) -> None:
    train, fold = read_strong_split(real_data("ml-1m-strong.zip"))
    for relaxation, known in ((0.0, [0.3597, 0.4833, 0.4284]), (0.2, [0.3597, 0.4829, 0.4283])):
        scores = RDLAE(l2=200, dropout=0.5, relaxation=relaxation).fit(train).score(fold.history).numpy()
        # In float64, too, the last of them is .42825.
        np.testing.assert_allclose(figures(scores, fold), known, rtol=0, atol=1e-4)
