"""The log-likelihoods of exponential families against the dense formula in float64, gradients included, what they may
keep in memory, and the way they take on CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import pad, softplus
from torch.utils._python_dispatch import TorchDispatchMode

from recae.autoencoder.batches import Batch
from recae.kernels import own, rows, tiles
from recae.kernels.exponential import Family, log_likelihood
from recae.kernels.memory import memory_kept

FAMILIES: list[Family] = ["bernoulli", "gaussian", "poisson"]
UNSEEN = [0.0, 0.3, 1.0]
ALWAYS, NEVER = 2**60, -1
WIDTH = 5
"""Fewer users than this, and a Gaussian takes tiles; more, and it takes the product of the weight with itself."""


@contextmanager
def tiles_of(items: int, users: int, kept: int) -> Iterator[None]:
    """Make tiles this small, and what the backward pass wants be kept up to so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", items * users)
        patch.setattr(tiles, "NARROWEST", 1)
        patch.setattr(tiles, "KEPT", kept)
        yield


def batch_of(users: int, items: int, density: float, generator: torch.Generator) -> Batch:
    """Draw histories of distinct items: empty ones among them, and values of zero."""
    where = torch.rand(users, items, generator=generator) < density
    owners, own_items = where.nonzero().unbind(1)
    values = torch.randint(-1, 4, (len(owners),), generator=generator) * 0.7
    return Batch(pad(where.sum(dim=1).cumsum(0), (1, 0)), owners, own_items, values)


def parameters(users: int, items: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = [(users, WIDTH), (items, WIDTH), (items,)]
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def twin(features: Tensor, weight: Tensor, bias: Tensor, batch: Batch, family: Family, unseen: float) -> Tensor:
    logits = features @ weight.T + bias
    dense = torch.zeros_like(logits).index_put((batch.users, batch.items), batch.values.to(logits), accumulate=True)
    partition = {
        "bernoulli": lambda z: softplus(z, threshold=700),
        "gaussian": lambda z: z**2 / 2,
        "poisson": torch.exp,
    }
    own = (dense != 0).to(logits)
    terms = dense * logits - (own + unseen * (1 - own)) * partition[family](logits)
    return terms.sum(dim=1)


def ours(features: Tensor, weight: Tensor, bias: Tensor, batch: Batch, family: Family, unseen: float) -> Tensor:
    of_batch = (batch.offsets, batch.users, batch.items, batch.values)
    return log_likelihood(features, weight, bias, *of_batch, family, unseen)


def value_and_gradients(run, inputs: list[Tensor], batch: Batch, slope: Tensor, *rest: Any) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    found = run(*leaves, batch, *rest)
    found.backward(slope.to(found.dtype))
    return [found.detach(), *(leaf.grad for leaf in leaves)]


def of_twin(inputs: list[Tensor], batch: Batch, slope: Tensor, *rest: Any) -> list[Tensor]:
    return value_and_gradients(twin, [tensor.double() for tensor in inputs], batch, slope, *rest)


def assert_close(found: list[Tensor], expected: list[Tensor], close: float) -> None:
    """Compare norms: a sum of thousands of e^z is as exact as its largest terms."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours.double() - theirs).norm() <= close * (1 + theirs.norm())


@pytest.mark.parametrize("family", FAMILIES)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(0, 9),
    items=st.integers(1, 75),
    tile=st.integers(1, 80),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    unseen=st.sampled_from(UNSEEN),
    kept=st.sampled_from([ALWAYS, NEVER]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_value_and_gradients_are_those_of_the_dense_formula(
    family: Family,
    seed: int,
    users: int,
    items: int,
    tile: int,
    density: float,
    unseen: float,
    kept: int,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = batch_of(users, items, density, generator)
    inputs = parameters(users, items, generator, dtype)
    slope = torch.randn(users, generator=generator)

    with tiles_of(tile, users, kept):
        found = value_and_gradients(ours, inputs, batch, slope, family, unseen)

    assert all(tensor.dtype == dtype for tensor in found)
    # Values are float32 in a batch: what the twin is given in float64 is the same.
    assert_close(found, of_twin(inputs, batch, slope, family, unseen), 1e-10 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize("users", [4, 9])
def test_entries_of_the_value_zero_are_none(family: Family, unseen: float, users: int) -> None:
    generator = torch.Generator().manual_seed(1)
    batch = batch_of(users, 30, 0.3, generator)
    inputs, slope = parameters(users, 30, generator), torch.randn(users, generator=generator)
    inputs[2][0] = 1000.0  # e^1000 is infinite, and so is what is filled in, where somebody looks at it
    flags = (batch.values != 0) & (batch.items != 0)
    absent = Batch(batch.offsets, batch.users, batch.items, batch.values * flags)
    if unseen:
        inputs[2][0] = 3.0

    found = value_and_gradients(ours, inputs, absent.padded(len(batch.items) + 50), slope, family, unseen)

    for first, second in zip(
        found, value_and_gradients(ours, inputs, batch.keep(flags), slope, family, unseen), strict=True
    ):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize("size", [80.0, 1e4])
def test_a_bernoulli_s_large_logits_neither_overflow_nor_vanish(unseen: float, size: float) -> None:
    generator = torch.Generator().manual_seed(2)
    batch = batch_of(4, 50, 0.3, generator)
    features, weight, _ = parameters(4, 50, generator)
    inputs = [features, weight, torch.linspace(-size, size, 50)]

    with tiles_of(16, 4, ALWAYS):
        found = value_and_gradients(ours, inputs, batch, torch.ones(4), "bernoulli", unseen)

    assert_close(found, of_twin(inputs, batch, torch.ones(4), "bernoulli", unseen), 1e-6)
    nobody = Batch(torch.zeros(5, dtype=torch.long), batch.users[:0], batch.items[:0], batch.values[:0])
    low = ours(features, 0 * weight, torch.full((50,), -size / 2), nobody, "bernoulli", 1.0)
    torch.testing.assert_close(low, low.new_full((4,), -50 * torch.tensor(-size / 2).exp()), rtol=1e-6, atol=0)


def test_a_gaussian_s_sum_of_squares_stands_a_bias_that_takes_back_what_users_have_in_common() -> None:
    generator = torch.Generator().manual_seed(3)
    features, weight, bias = parameters(40, 300, generator)
    common = 100 * torch.randn(WIDTH, generator=generator)
    inputs = [features + common, weight, bias - weight @ common]
    batch = batch_of(40, 300, 0.1, generator)

    found = ours(*inputs, batch, "gaussian", 1.0)

    # The input in float32 is only so exact itself.
    assert_close([found], [twin(*(tensor.double() for tensor in inputs), batch, "gaussian", 1.0)], 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unseen", UNSEEN)
def test_kept_and_computed_again_agree_and_each_has_the_same_bits_every_time(family: Family, unseen: float) -> None:
    generator = torch.Generator().manual_seed(4)
    batch, inputs = batch_of(4, 400, 0.1, generator), parameters(4, 400, generator)
    slope = torch.randn(4, generator=generator)
    found = {}
    for kept in (ALWAYS, NEVER):
        with tiles_of(64, 4, kept):
            found[kept] = value_and_gradients(ours, inputs, batch, slope, family, unseen)
            again = value_and_gradients(ours, inputs, batch, slope, family, unseen)
        assert all(torch.equal(first, second) for first, second in zip(found[kept], again, strict=True))
    for first, second in zip(found[ALWAYS], found[NEVER], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize("users", [4, 9])
@pytest.mark.parametrize("wanted", range(3))
def test_only_the_gradients_that_are_asked_for_are_there(
    family: Family, unseen: float, users: int, wanted: int
) -> None:
    generator = torch.Generator().manual_seed(5)
    batch, inputs = batch_of(users, 40, 0.2, generator), parameters(users, 40, generator)
    inputs[wanted].requires_grad_()

    ours(*inputs, batch, family, unseen).sum().backward()

    theirs = of_twin(inputs, batch, torch.ones(users), family, unseen)
    for number, tensor in enumerate(inputs):
        if number != wanted:
            assert tensor.grad is None
        else:
            torch.testing.assert_close(tensor.grad, theirs[1 + number].float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize("users", [4, 9])
def test_gradients_add_up_in_kept_memory_and_reach_what_weights_are_made_of(
    family: Family, unseen: float, users: int
) -> None:
    generator = torch.Generator().manual_seed(6)
    batches = [batch_of(users, 40, 0.2, generator) for _ in range(2)]
    inputs = [nn.Parameter(tensor) for tensor in parameters(users, 40, generator)]
    features, weight, bias = inputs
    expected = [of_twin(inputs, batch, torch.ones(users), family, unseen)[1:] for batch in batches]
    together = [first + second for first, second in zip(*expected, strict=True)]

    with memory_kept():
        for _ in range(2):
            for parameter in inputs:
                parameter.grad = None
            losses = [ours(features, weight, bias, batch, family, unseen).sum() for batch in batches]
            for loss in losses:
                loss.backward()
        assert_close([parameter.grad for parameter in inputs], together, 1e-5)
        for parameter in inputs:
            parameter.grad = None
        ours(2 * features, weight / 2, 1 * bias, batches[0], family, unseen).sum().backward()
        made = [parameter.grad for parameter in inputs]

    theirs = of_twin([2 * features, weight / 2, bias], batches[0], torch.ones(users), family, unseen)[1:]
    assert_close(made, [2 * theirs[0], theirs[1] / 2, theirs[2]], 1e-5)


class Watched(TorchDispatchMode):
    """Knows the largest tensor that was made, and refuses what the processor would have to wait for a device for."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")

    def __init__(self, *, waits: bool = True) -> None:
        super().__init__()
        self.waits = waits
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        assert self.waits or not (name in self.WAITS or name.startswith("_unique")), f"{name} waits for the device"
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                self.largest = max(self.largest, tensor.numel())
        return made


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize("users", [4, 50])
def test_there_is_never_more_of_users_times_items_than_a_tile(family: Family, unseen: float, users: int) -> None:
    generator = torch.Generator().manual_seed(7)
    items = 64 * WIDTH * users
    batch, inputs = batch_of(users, items, 0.01, generator), parameters(users, items, generator)

    with tiles_of(64, users, NEVER), Watched() as watched:
        value_and_gradients(ours, inputs, batch, torch.ones(users), family, unseen)
    assert watched.largest == max(items * WIDTH, 64 * users)

    with tiles_of(64, users, ALWAYS), Watched() as watched:
        value_and_gradients(ours, inputs, batch, torch.ones(users), family, unseen)
    in_tiles = unseen and not (family == "gaussian" and users > WIDTH)
    assert watched.largest == (max(users, WIDTH) if in_tiles else WIDTH) * items


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize("users", [4, 9])
def test_the_way_it_goes_on_cuda_is_right_and_never_waits(
    family: Family, unseen: float, users: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(8)
    batch, inputs = batch_of(users, 200, 0.2, generator), parameters(users, 200, generator)
    slope = torch.randn(users, generator=generator)
    expected = of_twin(inputs, batch, slope, family, unseen)
    batch = batch.padded(len(batch.items) + 20)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    monkeypatch.setattr(rows, "can_compile", lambda device: False)
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: pytest.fail("tolist waits for the device"))
    monkeypatch.setattr(own, "GATHERED", 7 * WIDTH)

    with tiles_of(64, users, ALWAYS), Watched(waits=False):
        found = value_and_gradients(ours, inputs, batch, slope, family, unseen)

    assert_close(found, expected, 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize("users", [4, 300])
def test_on_cuda_it_is_right_and_can_be_recorded(family: Family, unseen: float, users: int) -> None:
    generator = torch.Generator().manual_seed(9)
    batch, inputs = batch_of(users, 2000, 0.02, generator), parameters(users, 2000, generator)
    expected = of_twin(inputs, batch, torch.ones(users), family, unseen)
    padded = batch.padded(len(batch.items) + 100)
    there = Batch(*(getattr(padded, name).cuda() for name in ("offsets", "users", "items", "values")))
    leaves = [tensor.cuda().requires_grad_() for tensor in inputs]

    def work() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        with torch.autocast("cuda", dtype=torch.bfloat16):
            value = ours(*leaves, there, family, unseen)
        value.sum().backward()
        return value.detach()

    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = work()
    graph.replay()

    assert_close([value.cpu(), *(leaf.grad.cpu() for leaf in leaves)], expected, 1e-5)
