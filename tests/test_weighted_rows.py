"""The sparse first layer against the dense product in float64, gradients included."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recae.kernels import rows
from recae.kernels.rows import weighted_rows


def interactions(users: int, items: int, longest: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return offsets, items and values: repeated items, zeros, negative values and empty histories among them."""
    lengths = torch.randint(0, longest + 1, (users,), generator=generator)
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    count = int(offsets[-1])
    values = torch.randint(-1, 4, (count,), generator=generator) * 0.7
    return offsets, torch.randint(0, items, (count,), generator=generator), values


def dense(offsets: Tensor, items: Tensor, values: Tensor, catalogue: int) -> Tensor:
    users = torch.arange(len(offsets) - 1).repeat_interleave(offsets.diff())
    matrix = torch.zeros(len(offsets) - 1, catalogue, dtype=torch.float64)
    return matrix.index_put((users, items), values.double(), accumulate=True)


@given(
    seed=st.integers(0, 10_000),
    users=st.integers(0, 9),
    items=st.integers(1, 40),
    width=st.integers(1, 20),
    longest=st.sampled_from([0, 1, 12]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    with_mkl=st.booleans(),
)
def test_sums_and_gradients_are_those_of_the_dense_product(
    seed: int, users: int, items: int, width: int, longest: int, dtype: torch.dtype, with_mkl: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = interactions(users, items, longest, generator)
    weight = torch.randn(items, width, generator=generator, dtype=dtype).requires_grad_()
    slope = torch.randn(users, width, generator=generator, dtype=dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "HAS_MKL", with_mkl and rows.HAS_MKL)
        found = weighted_rows(weight, *batch)
        found.backward(slope)

    matrix = dense(*batch, items)
    close = {"rtol": 1e-5, "atol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(found, matrix @ weight.detach().double(), **close)
    torch.testing.assert_close(weight.grad, matrix.T @ slope.double(), **close)


def test_a_gradient_that_is_no_row_after_the_other_in_memory_is_understood() -> None:
    generator = torch.Generator().manual_seed(1)
    batch = interactions(5, 8, 4, generator)
    weight = torch.randn(8, 3, generator=generator).requires_grad_()
    slope = torch.randn(3, 5, generator=generator).T

    weighted_rows(weight, *batch).backward(slope)

    torch.testing.assert_close(weight.grad, dense(*batch, 8).T @ slope.double(), check_dtype=False)
