"""What is special to the undercomplete autoencoder: AutoRec's loss, and when there is nothing in it to learn."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recae.autoencoder.batches import batch_of
from recae.errors import ModelError
from recae.histories import valued
from recae.models import build
from recae.models.base import FitOptions


def ratings(users: int = 60, items: int = 12, seed: int = 0) -> csr_matrix:
    """Ratings from 1 to 5, two thirds of them known: users of two tastes, each high where the other is low."""
    rng = np.random.default_rng(seed)
    taste, kind = rng.integers(2, size=(users, 1)), np.arange(items) % 2
    value = np.where(taste == kind, 4.5, 1.5) + rng.normal(0, 0.2, (users, items))
    return csr_matrix(np.where(rng.random((users, items)) < 2 / 3, value, 0).astype(np.float32))


AUTOREC = {"likelihood": "gaussian", "unseen": 0.0}


def test_autorec_predicts_ratings_it_was_not_shown_better_than_the_mean_of_each_item() -> None:
    seen = ratings()
    rng = np.random.default_rng(1)
    hidden = rng.random(seen.nnz) < 0.2
    shown, asked = seen.copy(), seen.copy()
    shown.data[hidden], asked.data[~hidden] = 0, 0
    shown.eliminate_zeros()
    asked.eliminate_zeros()
    settings = AUTOREC | {"latent": 8, "learning_rate": 0.03, "batch_size": 20, "epochs": 60, "weight_decay": 1e-2}

    model = build("autoencoder", **settings).fit(shown)
    predicted = model.predict(shown).numpy()[asked.nonzero()]

    mean = np.asarray(shown.sum(axis=0)).ravel() / np.maximum(1, shown.getnnz(axis=0))
    errors = np.square(predicted - asked.data).mean(), np.square(mean[asked.nonzero()[1]] - asked.data).mean()
    assert errors[0] < errors[1] / 2


def test_the_loss_of_autorec_is_half_the_squared_error_of_observed_values_alone() -> None:
    seen = valued(ratings(users=7), zeros=True)
    model = build("autoencoder", latent=4, epochs=1, **AUTOREC).fit(seen)
    assert model.network_.standard is not None
    told = float(model.network_.standard.deviation)

    objective = model.phases(model.network_, seen / told)[0].objective
    loss = objective.loss(objective.draw(batch_of(seen / told, "cpu"), torch.Generator()), {})

    away = (model.predict(seen).numpy() - seen.toarray()) * (seen.toarray() != 0) / told
    torch.testing.assert_close(loss, torch.from_numpy(0.5 * np.square(away).sum(axis=1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unit_length", [True, False])
def test_only_without_unit_length_it_matters_how_large_all_values_are(unit_length: bool) -> None:
    seen = ratings()
    model = build("autoencoder", latent=4, epochs=3, unit_length=unit_length).fit(seen)

    doubled = model.score(2 * seen)

    assert torch.allclose(doubled, model.score(seen), rtol=1e-4, atol=1e-5) == unit_length


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "poisson"])
@pytest.mark.parametrize("name", ["autoencoder", "mult-dae"])
def test_equal_values_with_nothing_beside_them_are_refused(name: str, likelihood: str) -> None:
    ones = csr_matrix((ratings() > 0).astype(np.float32))
    model = build(name, likelihood=likelihood, unseen=0.0, latent=4, epochs=1)
    with pytest.raises(ModelError, match=f"{name}: with unseen = 0 .* all of them are 1.* give unseen = 1") as refused:
        model.fit(ones)
    assert "\n" not in str(refused.value)


def test_with_the_defaults_equal_values_are_ranked() -> None:
    ones = csr_matrix((ratings() > 0).astype(np.float32))
    scores = build("autoencoder", latent=4, epochs=20, learning_rate=0.01).fit(ones).score(ones)
    assert scores.std(dim=1).min() > 0


def test_an_observed_zero_counts_only_where_unseen_items_count_otherwise() -> None:
    seen = ratings(users=20)
    zeros = seen.copy()
    zeros.data[::3] = 0
    fits = {
        unseen: [
            build("autoencoder", likelihood="gaussian", unseen=unseen, latent=4, epochs=2).fit(given, FitOptions())
            for given in (zeros, valued(zeros))
        ]
        for unseen in (1.0, 0.2)
    }
    assert torch.equal(*(model.score(seen) for model in fits[1.0]))
    assert not torch.equal(*(model.score(seen) for model in fits[0.2]))
