"""The inverse in place next to numpy's, and what its error says."""

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recae.kernels import gram, inverse
from recae.kernels.inverse import invert


def positive(size: int, seed: int = 0, least: float = 0.5) -> torch.Tensor:
    """A symmetric matrix in float64 with eigenvalues from `least` on."""
    rows = torch.randn((size, 2 * size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows @ rows.T / size + least * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("way", ["LAPACK", "CUDA's, on the processor"])
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 30))
def test_it_equals_numpys(way: str, seed: int, size: int) -> None:
    matrix = positive(size, seed)
    known = np.linalg.inv(matrix.numpy())
    for precision, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-11)):
        inverted = matrix.to(precision, copy=True)
        with patch.object(
            inverse, "_invert_on_cpu", inverse._invert_on_cpu if way == "LAPACK" else inverse._invert_on_cuda
        ):
            assert invert(inverted) < tolerance
        np.testing.assert_allclose(inverted.numpy(), known, atol=tolerance * np.abs(known).max())


def test_it_takes_the_place_of_the_matrix_and_is_symmetric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverse, "BLOCK", 4)
    monkeypatch.setattr(gram, "BLOCK", 4)
    matrix = positive(11).float()
    place = matrix.data_ptr()
    invert(matrix)
    assert matrix.data_ptr() == place
    assert torch.equal(matrix, matrix.T)


def test_the_error_bounds_what_rounding_did() -> None:
    for least in (1e-2, 1e-4, 1e-6):
        matrix = positive(60, seed=1, least=0) + least * torch.eye(60, dtype=torch.float64)
        # As good as dependent: without what is added to the diagonal, two rows are the same.
        matrix[1], matrix[:, 1] = matrix[0], matrix[:, 0]
        matrix[1, 1] = matrix[0, 0]
        matrix[0, 1] = matrix[1, 0] = matrix[0, 0] - least
        rounded = matrix.float()
        known = torch.linalg.inv(rounded.double())
        error = invert(rounded)
        assert torch.linalg.norm(rounded - known) / torch.linalg.norm(known) < 10 * error


def test_a_matrix_without_a_factor_has_an_infinite_error() -> None:
    assert invert(torch.ones(3, 3)) == math.inf
    assert invert(-torch.eye(4, dtype=torch.float64)) == math.inf
    assert not inverse._invert_on_cuda(-torch.eye(4))


def test_the_error_is_the_same_every_time() -> None:
    assert len({invert(positive(20).float()) for _ in range(3)}) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("size", [1, 17, 1500])
def test_cuda_inverts_like_the_processor(size: int) -> None:
    matrix = positive(size)
    known = np.linalg.inv(matrix.numpy())
    inverted = matrix.float().cuda()
    assert invert(inverted) < 1e-3
    np.testing.assert_allclose(inverted.cpu().numpy(), known, atol=1e-4 * np.abs(known).max())
    assert invert(-torch.eye(size, device="cuda")) == math.inf
