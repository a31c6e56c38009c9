"""Each term of a loss against its formula in float64, and against torch.distributions."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from recae.autoencoder.batches import Batch, batch_of
from recae.autoencoder.likelihoods import Reconstruction, kl_to_standard_normal, multinomial
from recae.errors import CannotPredict, ModelError
from recae.histories import valued
from recae.models import build


def histories(seed: int, users: int = 7, items: int = 11, density: float = 0.3) -> csr_matrix:
    return csr_matrix(random_array((users, items), density=density, rng=np.random.default_rng(seed), dtype=np.float32))


def multinomial_of(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the likelihood under these logits: features that an identity leads to the items."""
    output = torch.nn.Linear(logits.shape[1], logits.shape[1], dtype=logits.dtype)
    torch.nn.init.eye_(output.weight)
    torch.nn.init.zeros_(output.bias)
    return multinomial(logits, output, batch)


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 30.0]), density=st.sampled_from([0.0, 0.2, 1.0]))
def test_multinomial_is_the_sum_of_values_times_log_softmax(seed: int, scale: float, density: float) -> None:
    matrix = histories(seed, density=density)
    logits = scale * np.random.default_rng(seed).standard_normal(matrix.shape)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    expected = (matrix.toarray().astype(np.float64) * log_shares).sum(axis=1)

    found = multinomial_of(torch.from_numpy(logits).float(), batch_of(matrix, "cpu"))

    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_multinomial_is_that_of_torch_but_for_the_coefficient() -> None:
    counts = torch.tensor([[2.0, 0.0, 1.0, 4.0], [0.0, 3.0, 0.0, 4.0]], dtype=torch.float64)
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = torch.distributions.Multinomial(total_count=7, logits=logits).log_prob(counts)
    coefficient = torch.lgamma(torch.tensor(8.0, dtype=torch.float64)) - torch.lgamma(counts + 1).sum(1)

    ours = multinomial_of(logits, batch_of(csr_matrix(counts.numpy()), "cpu"))

    torch.testing.assert_close(ours + coefficient, theirs, check_dtype=False)


def test_gradient_of_multinomial_is_that_of_the_dense_formula() -> None:
    matrix = histories(3)
    sparse = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    dense = sparse.detach().double().requires_grad_()

    multinomial_of(sparse, batch_of(matrix, "cpu")).sum().backward()
    (torch.from_numpy(matrix.toarray()).double() * torch.log_softmax(dense, 1)).sum().backward()

    torch.testing.assert_close(sparse.grad, dense.grad, check_dtype=False)


def test_a_user_without_interactions_has_likelihood_one() -> None:
    nobody = batch_of(csr_matrix((2, 5), dtype=np.float32), "cpu")

    assert multinomial_of(torch.randn(2, 5), nobody).tolist() == [0, 0]


def test_divergence_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(2)
    mean, log_variance = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    posterior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))

    found = kl_to_standard_normal(mean, log_variance)

    torch.testing.assert_close(found, torch.distributions.kl_divergence(posterior, prior).sum(1))


def of_logits(reconstruction: Reconstruction, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the log-likelihood under these logits: features that an identity leads to the items."""
    output = torch.nn.Linear(logits.shape[1], logits.shape[1])
    torch.nn.init.eye_(output.weight)
    torch.nn.init.zeros_(output.bias)
    return reconstruction(logits, output, batch).detach()


THEIRS = {
    "bernoulli": (lambda z: torch.distributions.Bernoulli(logits=z, validate_args=False), 0.0),
    "gaussian": (lambda z: torch.distributions.Normal(z, 1.0), 0.5 * np.log(2 * np.pi)),
    "poisson": (lambda z: torch.distributions.Poisson(z.exp()), 0.0),
}


@pytest.mark.parametrize("likelihood", THEIRS)
@pytest.mark.parametrize("unseen", [0.0, 0.2, 1.0])
@given(seed=st.integers(0, 10_000), density=st.sampled_from([0.0, 0.3, 1.0]))
def test_the_others_are_those_of_torch_with_unseen_items_weighted(
    likelihood: Any, unseen: float, seed: int, density: float
) -> None:
    matrix = histories(seed, density=density)
    matrix.data = {
        "bernoulli": np.ones_like,
        "gaussian": lambda x: 4 * x - 2,
        "poisson": lambda x: 1 + (5 * x).round(),
    }[likelihood](matrix.data)
    logits = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(seed))
    values = torch.from_numpy(matrix.toarray())
    theirs, constant = THEIRS[likelihood]
    weights = torch.where(values != 0, 1.0, unseen)
    expected = (weights * (theirs(logits).log_prob(values) + constant)).sum(dim=1)

    found = of_logits(Reconstruction(likelihood, unseen), logits, batch_of(matrix, "cpu"))

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_expected_values_are_the_means_of_the_distributions() -> None:
    logits = torch.tensor([[-1.0, 0.0, 2.0]])
    for likelihood, (theirs, _) in THEIRS.items():
        torch.testing.assert_close(Reconstruction(likelihood).expected(logits), theirs(logits).mean)  # type: ignore[arg-type]
    with pytest.raises(CannotPredict, match="multinomial likelihood has no values to predict; give likelihood"):
        Reconstruction("multinomial").expected(logits)


@pytest.mark.parametrize(
    ("likelihood", "values", "said"),
    [
        ("bernoulli", [1.0, 4.5], "likelihood = bernoulli wants values from 0 to 1, and there is 4.5 among them"),
        ("bernoulli", [1.0, -1.0], "there is -1 among them"),
        ("poisson", [3.0, -2.0], "likelihood = poisson wants values from 0, and there is -2 among them"),
        ("multinomial", [-0.5, 1.0], "likelihood = multinomial wants values from 0, and there is -0.5 among them"),
    ],
)
def test_values_that_a_likelihood_gives_no_chance_are_refused(likelihood: Any, values: list[float], said: str) -> None:
    with pytest.raises(ModelError, match=f"mult-dae: .*{said}; give likelihood = gaussian, or make the values binary"):
        build("mult-dae", likelihood=likelihood, epochs=1).fit(csr_matrix(np.array([values, values])))


def test_any_value_is_a_gaussian_s() -> None:
    model = build("mult-dae", likelihood="gaussian", unseen=0.0, epochs=1).fit(csr_matrix([[-9.5, 0.25], [10.0, 3.0]]))
    assert torch.isfinite(model.predict(csr_matrix([[-9.5, 0.0]]))).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"unseen": 0.5}, r"unseen = 0.5 is for the likelihoods bernoulli, gaussian, poisson"),
        ({"likelihood": "poisson", "negatives": 5}, "negatives = 5 is for the multinomial likelihood"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=f"mult-vae: {said}"):
        build("mult-vae", **settings)


def test_an_observed_zero_is_an_observation_for_a_gaussian_only() -> None:
    zero = csr_matrix((np.array([0.0, 3.0], dtype=np.float32), [0, 1], [0, 2]), shape=(1, 3))
    absent = csr_matrix(np.array([[0.0, 3.0, 0.0]], dtype=np.float32))
    logits = torch.tensor([[2.0, 1.0, 1.0]])

    def loss(matrix: csr_matrix, zeros: bool) -> float:
        return float(of_logits(Reconstruction("gaussian", 0.0), logits, batch_of(valued(matrix, zeros=zeros), "cpu")))

    assert loss(zero, True) == pytest.approx(-0.5 * (2.0**2 + 2.0**2))
    assert loss(zero, False) == loss(absent, True) == pytest.approx(-0.5 * 2.0**2)
