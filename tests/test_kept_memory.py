"""Gradients written where the last one was are those that autograd would have handed over."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, random_array
from torch import Tensor, nn

from recae.kernels import multinomial, rows
from recae.kernels.memory import borrow, give_back, memory_kept
from recae.kernels.rows import weighted_rows
from recae.models.base import FitOptions
from recae.models.mult_vae import MultVAE

OFFSETS, ITEMS = torch.tensor([0, 2, 3]), torch.tensor([0, 3, 3])


def backward(weight: Tensor, values: list[float]) -> None:
    weighted_rows(weight, OFFSETS, ITEMS, torch.tensor(values)).sum().backward()


def gradient(*values: float) -> Tensor:
    """Return what `backward` leaves: every column of a row is the sum of its values."""
    first, second, third = values
    return torch.tensor([first, 0, 0, second + third])[:, None].expand(4, 2)


@pytest.fixture
def weight() -> nn.Parameter:
    return nn.Parameter(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))


def test_a_gradient_is_overwritten_where_it_was_once_it_is_forgotten(weight: nn.Parameter) -> None:
    with memory_kept():
        backward(weight, [1, 2, 3])
        first = weight.grad
        weight.grad = None
        backward(weight, [5, 7, 11])
    assert weight.grad is first
    assert torch.equal(weight.grad, gradient(5, 7, 11))


@pytest.mark.parametrize("forgotten", [True, False])
def test_gradients_add_up_until_they_are_forgotten(weight: nn.Parameter, forgotten: bool) -> None:
    with memory_kept():
        backward(weight, [100, 100, 100])
        if forgotten:
            weight.grad = None
            backward(weight, [0, 0, 0])
        backward(weight, [1, 2, 3])
        (weight * 1000).sum().backward()
        backward(weight, [1, 2, 3])
    assert torch.equal(weight.grad, gradient(2, 4, 6) + 1000 + (0 if forgotten else gradient(100, 100, 100)))


def test_a_gradient_of_somebody_elses_stays_theirs(weight: nn.Parameter) -> None:
    with memory_kept():
        backward(weight, [1, 2, 3])
        own = weight.grad
        weight.grad = theirs = torch.ones(4, 2)
        backward(weight, [1, 2, 3])
    assert weight.grad is theirs
    assert torch.equal(theirs, gradient(1, 2, 3) + 1)
    assert torch.equal(own, gradient(1, 2, 3))


def test_what_is_no_parameter_gets_its_gradient_from_autograd(weight: nn.Parameter) -> None:
    with memory_kept():
        backward(2 * weight, [1, 2, 3])
    assert torch.equal(weight.grad, 2 * gradient(1, 2, 3))


def test_nothing_is_kept_outside(weight: nn.Parameter) -> None:
    with memory_kept():
        backward(weight, [1, 2, 3])
        give_back(buffer := borrow(10, weight))
        assert borrow(10, weight) is buffer
        give_back(buffer)
    first, weight.grad = weight.grad, None
    backward(weight, [5, 7, 11])
    assert torch.equal(first, gradient(1, 2, 3))
    assert borrow(10, weight) is not buffer


def test_a_buffer_is_lent_once_and_to_who_it_fits() -> None:
    with memory_kept():
        like = torch.empty(0)
        large, small = borrow(100, like), borrow(10, like)
        give_back(large)
        give_back(small)
        assert borrow(11, like.double()).dtype == torch.float64
        assert borrow(9, like) is small
        assert borrow(9, like) is large
        assert borrow(9, like) is not large


def test_a_model_learns_the_same_bits_as_with_fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = csr_matrix(random_array((40, 30), density=0.2, rng=np.random.default_rng(0)))

    def learned() -> dict[str, Tensor]:
        model = MultVAE(hidden=(8,), latent=4, batch_size=16, epochs=3)
        return model.fit(histories, FitOptions(seed=1)).state()

    with memory_kept():
        kept = learned()
    for kernel in (rows, multinomial):
        monkeypatch.setattr(kernel, "gradient_of", lambda weight: (torch.empty_like(weight), 0))
    monkeypatch.setattr(multinomial, "borrow", lambda count, like: torch.empty(count))
    fresh = learned()
    assert all(torch.equal(kept[name], fresh[name]) for name in kept)
