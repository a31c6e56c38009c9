"""The CUDA kernels against float64: by Triton's interpreter on a CPU, compiled on a GPU where there is one.

Whether kernels are interpreted is settled when they are defined, so this file decides before it imports them; pytest
keeps the tests of a file in one process (--dist loadfile), and no other file imports these kernels.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed: pip install 'recae[kernels]'")

from recae.kernels import triton_multinomial, triton_rows  # noqa: E402

# The interpreter has no products in bfloat16; float16 takes the same way through the kernels.
PRECISIONS = {torch.float32: 2e-6, torch.bfloat16 if DEVICE == "cuda" else torch.float16: 1e-2}

if DEVICE == "cuda":
    pytestmark = pytest.mark.gpu


class Case(NamedTuple):
    """A batch and what the loss is taken of, and the slope of whatever follows the loss."""

    features: Tensor
    weight: Tensor
    bias: Tensor
    offsets: Tensor
    users: Tensor
    items: Tensor
    values: Tensor
    slope: Tensor


def case(users: int, items: int, width: int, longest: int, *, spare: int = 0, seed: int = 0) -> Case:
    """Draw a case: the first user has no item, the second one, the third the same one five times; `spare` entries."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, longest, (users,), generator=draw)
    lengths[:3] = torch.tensor([0, 1, 5])[:users]
    offsets = pad(lengths.cumsum(0), (1, 0))
    total = int(offsets[-1])
    chosen = torch.randint(items, (total,), generator=draw)
    chosen[1:6] = chosen[1:2]
    values = torch.rand(total, generator=draw) * (torch.rand(total, generator=draw) < 0.7)
    owners = torch.arange(users).repeat_interleave(lengths)
    entries = (pad(owners, (0, spare)), pad(chosen, (0, spare)), pad(values, (0, spare)))
    dense = (torch.randn(*shape, generator=draw) for shape in ((users, width), (items, width), (items,), (users,)))
    features, weight, bias, slope = dense
    return Case(*(t.to(DEVICE) for t in (features, 0.5 * weight, bias, offsets, *entries, slope)))


def plain_log_likelihood(case: Case) -> Tensor:
    log_shares = torch.log_softmax(case.features @ case.weight.T + case.bias, dim=1)
    terms = case.values * log_shares[case.users, case.items]
    return torch.zeros_like(case.slope).index_add(0, case.users, terms)


def plain_weighted_rows(case: Case) -> Tensor:
    terms = case.values[:, None] * case.weight[case.items]
    return torch.zeros_like(case.features).index_add(0, case.users, terms)


def double(case: Case) -> Case:
    return Case(*(t.double() if t.is_floating_point() else t for t in case))


def with_gradients(function: Callable[[Case], Tensor], case: Case, *names: str) -> list[Tensor]:
    """Return a function's value, (users) or (users, width), and its gradients for a slope per user."""
    leaves = {name: getattr(case, name).clone().requires_grad_() for name in names}
    value = function(case._replace(**leaves))
    slope = case.slope if value.ndim == 1 else case.slope[:, None].expand_as(value)
    value.backward(slope.to(value.dtype))
    return [value.detach(), *(leaf.grad for leaf in leaves.values())]


def distance(result: Tensor, reference: Tensor) -> float:
    """Return ‖result - reference‖ / ‖reference‖; of two zeros it is zero."""
    assert result.shape == reference.shape
    return float((result.double() - reference).norm() / reference.norm().clamp(min=1e-300))


def likelihood(precision: torch.dtype = torch.float32, buffer: int = 2**28) -> Callable[[Case], Tensor]:
    return lambda c: triton_multinomial.log_likelihood(*c[:-1], precision=precision, buffer=buffer)


def weighted_rows(case: Case) -> Tensor:
    return triton_rows.weighted_rows(case.weight, case.offsets, case.items, case.values)


SHAPES = {
    "within a tile": (5, 7, 3, 9),
    "beyond a tile": (130, 260, 70, 6),
    "whole tiles": (64, 64, 128, 9),
    "one user": (1, 70, 5, 9),
    "one item": (9, 1, 5, 9),
    "long histories": (4, 40, 130, 400),
}
"""Users, items, width, and a bound for the length of a history."""


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_log_likelihood_and_its_gradients_are_those_of_the_plain_loss_in_float64(shape, precision):
    drawn = case(*SHAPES[shape])
    arguments = ("features", "weight", "bias")
    found = with_gradients(likelihood(precision), drawn, *arguments)
    expected = with_gradients(plain_log_likelihood, double(drawn), *arguments)
    # One item alone has share 1 whatever its weights: what is zero in float64 is what rounding leaves of it here.
    scale = 1.0 if drawn.weight.shape[0] > 1 else float("inf")
    for result, reference in zip(found, expected, strict=True):
        assert result.isfinite().all()
        if scale == 1.0:
            assert distance(result, reference) < PRECISIONS[precision]
        else:
            assert (result - reference).abs().max() < 20 * PRECISIONS[precision]
    assert found[0].dtype == torch.float32


def test_the_gradient_in_pieces_is_the_gradient():
    drawn = case(6, 150, 20, 30)
    arguments = ("features", "weight", "bias")

    whole = with_gradients(likelihood(), drawn, *arguments)
    pieces = with_gradients(likelihood(buffer=1), drawn, *arguments)
    for result, reference in zip(pieces, whole, strict=True):
        assert distance(result, reference.double()) < 1e-6


def test_entries_beyond_the_last_offset_count_for_nobody():
    drawn, spare = case(9, 40, 6, 12), case(9, 40, 6, 12, spare=50)
    spare.values[-50:] = 3.0
    spare.items[-50:] = 39
    for function, arguments in (
        (likelihood(), ("features", "weight")),
        (weighted_rows, ("weight",)),
    ):
        for result, reference in zip(
            with_gradients(function, spare, *arguments), with_gradients(function, drawn, *arguments), strict=True
        ):
            assert torch.equal(result, reference)


@pytest.mark.parametrize("wanted", ["features", "weight", "bias"])
def test_only_the_gradient_that_is_wanted_is_made(wanted):
    drawn = case(9, 40, 6, 12)
    _, found = with_gradients(likelihood(), drawn, wanted)
    _, expected = with_gradients(plain_log_likelihood, double(drawn), wanted)
    assert distance(found, expected) < 2e-6


def test_nobody_at_all():
    drawn = case(0, 5, 3, 4)
    found = with_gradients(likelihood(), drawn, "features", "weight")
    assert found[0].shape == (0,)
    assert not found[2].any()
    assert weighted_rows(drawn).shape == (0, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_weighted_rows_and_their_gradient_are_those_of_a_plain_sum_in_float64(shape):
    drawn = case(*SHAPES[shape])
    found = with_gradients(weighted_rows, drawn, "weight")
    expected = with_gradients(plain_weighted_rows, double(drawn), "weight")
    for result, reference in zip(found, expected, strict=True):
        assert distance(result, reference) < 1e-6


def test_the_same_input_gives_the_same_bits():
    drawn = case(9, 150, 20, 30)
    for function in (likelihood(), weighted_rows):
        once, again = (with_gradients(function, drawn, "weight") for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from recae.kernels import triton_multinomial as kernels

tiles, pointers = kernels.HALF, ("features", "weight", "bias", "log_total", "pull", "gradient", "partial")
sizes = {"USERS": tiles.users, "ITEMS": tiles.items, "DEPTH": 640, "STEP": tiles.depth}
for kernel in (kernels._sum_up, kernels._pull_down):
    half = {name: "*bf16" for name in ("features", "weight", "gradient")}
    kinds = {n: half.get(n, "*fp32" if n in pointers else "i32") for n in kernel.arg_names if n not in sizes}
    source = ASTSource(
        fn=kernel,
        signature={**kinds, **dict.fromkeys(sizes, "constexpr")},
        constexprs={(kernel.arg_names.index(name),): size for name, size in sizes.items()},
        attrs={(number,): [["tt.divisibility", 16]] for number, name in enumerate(kernel.arg_names) if name in kinds},
    )
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages(2, 232_448)}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(kernel.__name__, made.asm["ptx"].count("wgmma.mma_async"), made.metadata.shared)
"""


def test_the_products_are_those_of_the_tensor_cores_of_an_h100(tmp_path):
    """Triton compiles for a GPU that is not there."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _, _ in lines] == ["_sum_up", "_pull_down"]
    for _, products, shared in lines:
        assert int(products) > 0
        assert int(shared) <= 232_448
