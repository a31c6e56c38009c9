"""rating-als: each half-step against its obvious twin, and structure that item means cannot see."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recae.kernels import ridge as kernel
from recae.kernels.ridge import ridge
from recae.models.base import FitOptions
from recae.models.item_mean import ItemMean
from recae.models.rating_als import RatingALS
from recae.progress import Step


def drawn(users: int = 30, items: int = 40, seed: int = 0) -> csr_matrix:
    """Return entries of rows of all lengths, zeros that are stored among them; the last row has none."""
    generator = np.random.default_rng(seed)
    there = generator.random((users, items)) < np.linspace(0.9, 0, users)[:, None]
    ends = np.append(0, np.cumsum(there.sum(axis=1)))
    values = generator.integers(-3, 4, there.sum()).astype(np.float32)
    return csr_matrix((values, np.nonzero(there)[1], ends), shape=there.shape)


def obvious(vectors: np.ndarray, targets: csr_matrix, penalty: float) -> np.ndarray:
    solved = np.zeros((targets.shape[0], vectors.shape[1]))
    for row in range(targets.shape[0]):
        own = slice(*targets.indptr[row : row + 2])
        chosen, wanted = vectors[targets.indices[own]].astype(float), targets.data[own]
        if len(wanted):
            system = chosen.T @ chosen + penalty * len(wanted) * np.eye(vectors.shape[1])
            solved[row] = np.linalg.solve(system, chosen.T @ wanted)
    return solved


@pytest.mark.parametrize("width", [1, 3, 20])
def test_many_small_regressions_are_each_its_own(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = drawn()
    vectors = np.random.default_rng(1).normal(size=(40, width)).astype(np.float32)
    together = ridge(torch.tensor(vectors), targets, 0.3)
    np.testing.assert_allclose(together, obvious(vectors, targets, 0.3), rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(kernel, "TOGETHER", 20)
    torch.testing.assert_close(ridge(torch.tensor(vectors), targets, 0.3), together, rtol=1e-6, atol=1e-7)


def tastes(users: int = 200, items: int = 30, seed: int = 0) -> tuple[csr_matrix, csr_matrix]:
    """Return what is told and what is held out of values that two tastes make, around an item's and a user's own."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(users, 2)) @ generator.normal(size=(2, items))
    values += generator.normal(size=items) + generator.normal(size=(users, 1)) + 3
    told = generator.random(values.shape) < 0.7
    return tuple(csr_matrix(np.where(chosen, values, 0), dtype=np.float32) for chosen in (told, ~told))  # type: ignore[return-value]


def error(model: ItemMean | RatingALS, history: csr_matrix, held_out: csr_matrix) -> float:
    cells = held_out.nonzero()
    errors = model.predict(history).numpy()[cells] - np.asarray(held_out[cells])
    return float(np.sqrt(np.square(errors).mean()))


def test_what_tastes_make_of_values_is_found_where_item_means_cannot() -> None:
    train, _ = tastes()
    history, held_out = tastes(seed=0)
    settings = {"item_damping": 0.0, "user_damping": 0.0}
    plain = ItemMean(**settings).fit(train)
    model = RatingALS(factors=2, regularization=0.01, iterations=20, **settings).fit(train)
    assert error(model, history, held_out) < 0.4 * error(plain, history, held_out)


def test_a_round_never_raises_the_objective_and_regularised_away_it_is_item_mean() -> None:
    train, _ = tastes()
    told: list[Step] = []
    RatingALS(factors=4, regularization=0.05, iterations=12).fit(train, FitOptions(listener=told.append))
    losses = [step.figures["loss"] for step in told]
    assert all(after <= before + 1e-9 for before, after in pairwise(losses))
    away = RatingALS(factors=4, regularization=1e6).fit(train)
    torch.testing.assert_close(away.predict(train), ItemMean().fit(train).predict(train), rtol=1e-3, atol=1e-3)


def test_the_objective_that_is_told_is_the_one_that_is_documented() -> None:
    train, _ = tastes(users=40)
    model = RatingALS(factors=3, regularization=0.2, iterations=1)
    told: list[Step] = []
    model.fit(train, FitOptions(listener=told.append))
    residuals, _ = model._residuals(train)
    deviation = residuals.data.std()
    items = torch.randn(train.shape[1], 3, generator=torch.Generator().manual_seed(FitOptions().seed))
    users = ridge(0.1 * deviation**0.5 * items, residuals, 0.2 * deviation)
    q = ridge(users, residuals.T.tocsr(), 0.2 * deviation)
    rows, columns = residuals.nonzero()
    squares = np.square(residuals.data - (users[rows] * q[columns]).sum(dim=1).numpy()).sum()
    count = np.diff(train.indptr), np.diff(train.tocsc().indptr)
    penalty = sum(
        (np.asarray(n) * side.square().sum(dim=1).numpy()).sum() for n, side in zip(count, (users, q), strict=True)
    )
    assert told[0].figures["loss"] == pytest.approx((squares + 0.2 * deviation * penalty) / train.nnz, rel=1e-4)


def test_the_loss_of_very_large_values_is_finite() -> None:
    train, _ = tastes(users=60)
    losses = [step["loss"] for step in RatingALS(factors=3).fit(1e30 * train).training_.curve]
    expected = [1e60 * step["loss"] for step in RatingALS(factors=3).fit(train).training_.curve]
    np.testing.assert_allclose(losses, expected, rtol=1e-3)


@pytest.mark.parametrize("unit", [1e-3, 50.0])
def test_values_in_another_unit_are_predicted_in_it(unit: float) -> None:
    train, _ = tastes(users=60)
    in_unit = RatingALS(factors=3).fit(unit * train).predict(unit * train)
    torch.testing.assert_close(in_unit / unit, RatingALS(factors=3).fit(train).predict(train), rtol=1e-3, atol=1e-3)


def test_few_stars_of_many_users_are_more_than_their_means() -> None:
    generator = np.random.default_rng(0)
    likes = generator.normal(size=(500, 2)) @ generator.normal(size=(2, 180))
    stars = np.clip(np.round(3.5 + 0.7 * likes + 0.7 * generator.normal(size=likes.shape)), 1, 5)
    told, held_out = generator.random((2, *stars.shape)) < np.array([0.12, 0.03])[:, None, None]
    train, asked = (csr_matrix(np.where(chosen, stars, 0), dtype=np.float32) for chosen in (told, held_out & ~told))
    model, plain = RatingALS().fit(train), ItemMean().fit(train)
    assert error(model, train, asked) < 0.97 * error(plain, train, asked)


def test_values_that_are_all_the_same_leave_nothing_to_explain() -> None:
    train = csr_matrix(np.full((4, 3), 2.0, np.float32))
    torch.testing.assert_close(RatingALS().fit(train).predict(train), torch.full((4, 3), 2.0))
