"""Each term of a loss against its formula in float64, and against torch.distributions."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from recae.autoencoder.batches import Batch, batch_of
from recae.autoencoder.likelihoods import kl_to_standard_normal, multinomial


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
