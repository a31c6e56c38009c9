"""The log-likelihood in tiles against log_softmax in float64, gradients included, and what it may keep in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from recae.kernels import multinomial, tiles
from recae.kernels.memory import memory_kept
from recae.kernels.multinomial import log_likelihood

WIDTH = 5
ALWAYS, NEVER = 2**60, -1


@contextmanager
def tiles_of(items: int, users: int, kept: int) -> Iterator[None]:
    """Make tiles this small, and the softmax be kept up to so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", items * users)
        patch.setattr(tiles, "NARROWEST", 1)
        patch.setattr(tiles, "KEPT", kept)
        yield


def interactions(users: int, items: int, longest: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return offsets, users, items and values: repeated items, zeros and empty histories among them."""
    lengths = torch.randint(0, longest + 1, (users,), generator=generator)
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    count = int(offsets[-1])
    return (
        offsets,
        torch.arange(users).repeat_interleave(lengths),
        torch.randint(0, items, (count,), generator=generator),
        torch.randint(0, 4, (count,), generator=generator) * 0.7,
    )


def parameters(users: int, items: int, dtype: torch.dtype, generator: torch.Generator) -> list[Tensor]:
    shapes = [(users, WIDTH), (items, WIDTH), (items,)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def twin(features: Tensor, weight: Tensor, bias: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
    _, users, items, values = batch
    log_shares = torch.log_softmax(features @ weight.T + bias, dim=1)
    return features.new_zeros(len(features)).index_add(0, users, values.double() * log_shares[users, items])


def value_and_gradients(run, inputs: list[Tensor], batch: tuple[Tensor, ...], slope: Tensor) -> list[Tensor]:
    own = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    found = run(*own, *batch)
    found.backward(slope.to(found.dtype))
    return [found.detach(), *(tensor.grad for tensor in own)]


def of_twin(inputs: list[Tensor], batch: tuple[Tensor, ...], slope: Tensor) -> list[Tensor]:
    return value_and_gradients(
        lambda features, weight, bias, *batch: twin(features, weight, bias, batch),
        [tensor.double() for tensor in inputs],
        batch,
        slope,
    )


@given(
    seed=st.integers(0, 10_000),
    users=st.integers(0, 9),
    items=st.integers(1, 75),
    tile=st.integers(1, 80),
    longest=st.sampled_from([0, 1, 12]),
    kept=st.sampled_from([ALWAYS, NEVER]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_value_and_gradients_are_those_of_log_softmax(
    seed: int, users: int, items: int, tile: int, longest: int, kept: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = interactions(users, items, longest, generator)
    inputs = parameters(users, items, dtype, generator)
    slope = torch.randn(users, generator=generator)

    with tiles_of(tile, users, kept):
        found = value_and_gradients(log_likelihood, inputs, batch, slope)

    close = 1e-10 if dtype == torch.float64 else 2e-4
    for ours, theirs in zip(found, of_twin(inputs, batch, slope), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, check_dtype=False, rtol=close, atol=close)


@pytest.mark.parametrize("kept", [ALWAYS, NEVER])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_logits_do_not_overflow(size: float, kept: int) -> None:
    generator = torch.Generator().manual_seed(1)
    batch = interactions(4, 50, 9, generator)
    features, weight, bias = parameters(4, 50, torch.float32, generator)
    bias = torch.linspace(-size, size, 50)
    slope = torch.ones(4)

    with tiles_of(16, 4, kept):
        found = value_and_gradients(log_likelihood, [features, weight, bias], batch, slope)

    for ours, theirs in zip(found, of_twin([features, weight, bias], batch, slope), strict=True):
        torch.testing.assert_close(ours, theirs, check_dtype=False, rtol=1e-5, atol=1e-4)


def test_kept_and_computed_again_agree_and_each_has_the_same_bits_every_time() -> None:
    generator = torch.Generator().manual_seed(2)
    batch = interactions(30, 400, 20, generator)
    inputs = parameters(30, 400, torch.float32, generator)
    slope = torch.randn(30, generator=generator)
    found = {}
    for kept in (ALWAYS, NEVER):
        with tiles_of(64, 30, kept):
            found[kept] = value_and_gradients(log_likelihood, inputs, batch, slope)
            again = value_and_gradients(log_likelihood, inputs, batch, slope)
        assert all(torch.equal(first, second) for first, second in zip(found[kept], again, strict=True))
    for first, second in zip(found[ALWAYS], found[NEVER], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_only_the_gradients_that_are_asked_for_are_there() -> None:
    generator = torch.Generator().manual_seed(3)
    batch = interactions(6, 40, 5, generator)
    features, weight, bias = parameters(6, 40, torch.float32, generator)
    weight.requires_grad_(False)
    bias.requires_grad_(False)

    log_likelihood(features, weight, bias, *batch).sum().backward()

    assert weight.grad is None
    assert bias.grad is None
    theirs = of_twin([features, weight, bias], batch, torch.ones(6))
    torch.testing.assert_close(features.grad, theirs[1], check_dtype=False, rtol=1e-4, atol=1e-5)


def memory_of(items: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return how many numbers wait for the backward pass, beside the weights, and how many are borrowed at most."""
    generator = torch.Generator().manual_seed(4)
    batch = interactions(8, 100, 10, generator)
    inputs = parameters(8, items, torch.float32, generator)
    saved: list[Tensor] = []
    borrowed: list[int] = []

    def borrow(count: int, like: Tensor) -> Tensor:
        borrowed.append(count)
        return torch.empty(count)

    monkeypatch.setattr(multinomial, "borrow", borrow)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        log_likelihood(*inputs, *batch).sum().backward()
    weights = {tensor.data_ptr() for tensor in inputs[1:]}
    return sum(tensor.numel() for tensor in saved if tensor.data_ptr() not in weights), max(borrowed)


def test_what_is_computed_again_takes_memory_that_does_not_grow_with_the_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tiles_of(64, 8, NEVER):
        assert memory_of(640, monkeypatch) == memory_of(6400, monkeypatch)
    with tiles_of(64, 8, ALWAYS):
        assert memory_of(6400, monkeypatch)[1] == 8 * 6400


def test_the_softmax_is_kept_while_it_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def softmax_is_kept() -> bool:
        return memory_of(640, monkeypatch)[1] == 8 * 640

    with tiles_of(64, 8, 8 * 640 * 4):
        assert softmax_is_kept()
    with tiles_of(64, 8, 8 * 640 * 4 - 1):
        assert not softmax_is_kept()


def test_several_losses_in_work_at_once_do_not_share_memory() -> None:
    generator = torch.Generator().manual_seed(5)
    batches = [interactions(6, 40, 5, generator) for _ in range(2)]
    features, weight, bias = (nn.Parameter(tensor.detach()) for tensor in parameters(6, 40, torch.float32, generator))
    theirs = [of_twin([features, weight, bias], batch, torch.ones(6)) for batch in batches]

    with memory_kept():
        for _ in range(3):
            for parameter in (features, weight, bias):
                parameter.grad = None
            losses = [log_likelihood(features, weight, bias, *batch).sum() for batch in batches]
            for loss in losses:
                loss.backward()

    for parameter, first, second in zip((features, weight, bias), theirs[0][1:], theirs[1][1:], strict=True):
        torch.testing.assert_close(parameter.grad, first + second, check_dtype=False, rtol=1e-4, atol=1e-5)


def test_going_back_twice_after_the_memory_was_lent_to_others_is_refused() -> None:
    generator = torch.Generator().manual_seed(6)
    batch = interactions(6, 40, 5, generator)
    inputs = parameters(6, 40, torch.float32, generator)
    with memory_kept():
        loss = log_likelihood(*inputs, *batch).sum()
        loss.backward(retain_graph=True)
        log_likelihood(*inputs, *batch)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
