"""The networks against the same arithmetic on dense rows, and what building one may not do."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, random_array

from recae.autoencoder import networks
from recae.autoencoder.batches import batch_of
from recae.autoencoder.networks import DenoisingNetwork, Network, SparseLinear, VariationalNetwork

ITEMS = 13


def histories(users: int = 6) -> csr_matrix:
    matrix = random_array((users, ITEMS), density=0.4, rng=np.random.default_rng(4), dtype=np.float32).toarray()
    matrix[2] = 0
    return csr_matrix(matrix)


def ready(network: Network, seed: int = 0) -> Network:
    network.to_empty(device="cpu").initialise(torch.Generator().manual_seed(seed))
    return network


def test_sparse_first_layer_equals_the_dense_product_forward_and_backward() -> None:
    layer = SparseLinear(ITEMS, 5)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(1))
    weight, bias = (tensor.detach().double().requires_grad_() for tensor in (layer.weight, layer.bias))
    into = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))

    found = layer(batch_of(histories(), "cpu"))
    found.backward(into)
    expected = torch.from_numpy(histories().toarray()).double() @ weight + bias
    expected.backward(into.double())

    torch.testing.assert_close(found, expected, check_dtype=False)
    torch.testing.assert_close(layer.weight.grad, weight.grad, check_dtype=False)
    torch.testing.assert_close(layer.bias.grad, bias.grad, check_dtype=False)


@pytest.mark.parametrize("users", [0, 1])
def test_sparse_first_layer_of_nobody_and_of_nothing(users: int) -> None:
    layer = SparseLinear(ITEMS, 5)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.ones_(layer.bias)

    found = layer(batch_of(csr_matrix((users, ITEMS), dtype=np.float32), "cpu"))

    assert torch.equal(found, torch.ones(users, 5))


def dense_logits(state: dict[str, torch.Tensor], rows: np.ndarray, *, variational: bool) -> np.ndarray:
    weight = {name: tensor.double().numpy() for name, tensor in state.items()}
    norms = np.sqrt((rows**2).sum(1, keepdims=True))
    unit = rows / np.where(norms == 0, 1, norms)
    inner = np.tanh(unit @ weight["encoder.input.weight"] + weight["encoder.input.bias"])
    latent = inner @ weight["encoder.layers.0.weight"].T + weight["encoder.layers.0.bias"]
    latent = latent[:, : latent.shape[1] // 2] if variational else np.tanh(latent)
    outer = np.tanh(latent @ weight["decoder.layers.0.weight"].T + weight["decoder.layers.0.bias"])
    return outer @ weight["decoder.output.weight"].T + weight["decoder.output.bias"]


@pytest.mark.parametrize("kind", [DenoisingNetwork, VariationalNetwork])
def test_logits_are_those_of_the_paper_in_float64(kind: type[Network]) -> None:
    network = ready(kind(ITEMS, (8,), 3))

    found = networks.logits(network, batch_of(histories(), "cpu"))

    expected = dense_logits(
        networks.weights(network), histories().toarray().astype(np.float64), variational=kind is VariationalNetwork
    )
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [DenoisingNetwork, VariationalNetwork])
@pytest.mark.parametrize("hidden", [(), (8,), (9, 7)])
def test_widths_mirror_and_retrieval_vectors_multiply_to_the_logits(kind: type[Network], hidden: tuple) -> None:
    network = ready(kind(ITEMS, hidden, 3))

    users = networks.retrieval_vectors(network, batch_of(histories(), "cpu"))
    items = networks.item_vectors(network)

    assert networks.latent_vectors(network, batch_of(histories(), "cpu")).shape == (6, 3)
    assert users.shape == (6, (*hidden[:1], 3)[0] + 1)
    torch.testing.assert_close(users @ items.T, networks.logits(network, batch_of(histories(), "cpu")))


def test_first_weights_are_xavier_and_first_biases_small() -> None:
    network = ready(VariationalNetwork(500, (40,), 10))
    state = networks.weights(network)
    weight, bias = state["encoder.input.weight"], state["decoder.output.bias"]

    bound = np.sqrt(6 / (500 + 40))
    assert 0.98 * bound < float(weight.abs().max()) <= bound
    assert 0 < float(bias.abs().max()) <= 0.002


def test_the_seed_decides_the_first_weights_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (networks.weights(ready(DenoisingNetwork(ITEMS, (8,), 3), seed)) for seed in (1, 1, 2))

    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
