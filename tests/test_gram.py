"""The blocked Gram matrix next to scipy's plain product."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, random_array

from recae.kernels import gram as kernel
from recae.kernels.gram import gram, memory_needed, mirror


def histories(users: int, items: int, seed: int, density: float = 0.3) -> csr_matrix:
    drawn = csr_matrix(random_array((users, items), density=density, rng=np.random.default_rng(seed), dtype=np.float32))
    drawn.sort_indices()
    return drawn


def ones(of: csr_matrix) -> csr_matrix:
    return csr_matrix((np.ones_like(of.data), of.indices, of.indptr), shape=of.shape)


def plain(seen: csr_matrix) -> NDArray[np.float64]:
    dense = seen.toarray().astype(np.float64)
    return dense.T @ dense


@pytest.fixture(params=["MKL", "scipy", "dense"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to the product, in blocks that nothing here is a multiple of; "dense" is CUDA's, on the processor."""
    if request.param == "MKL" and not kernel.HAS_MKL:
        pytest.skip("torch has no MKL on this machine")
    monkeypatch.setattr(kernel, "HAS_MKL", request.param == "MKL")
    monkeypatch.setattr(kernel, "BLOCK", 4)
    monkeypatch.setattr(kernel, "DENSE_ENTRIES", 40)
    if request.param == "dense":
        monkeypatch.setattr(kernel, "_add_sparse", kernel._add_dense)
    return str(request.param)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 1), (1, 9), (23, 4), (30, 5), (31, 17)])
@pytest.mark.parametrize("interactions", [1, 10, 10_000])
def test_it_is_exact_for_ones(
    way: str, shape: tuple[int, int], interactions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "INTERACTIONS", interactions)
    seen = ones(histories(*shape, seed=sum(shape)))
    for precision in (torch.float32, torch.float64):
        counted = gram(seen, dtype=precision)
        assert counted.dtype == precision
        np.testing.assert_array_equal(counted.numpy(), plain(seen))


def test_other_values_are_rounded_to_float32(way: str) -> None:
    seen = histories(40, 11, seed=5)
    np.testing.assert_allclose(gram(seen).numpy(), plain(seen), rtol=1e-6)


def test_users_without_a_history_and_items_without_a_user_are_zero(way: str) -> None:
    seen = csr_matrix((np.ones(2, np.float32), ([2, 2], [1, 8])), shape=(6, 10))
    np.testing.assert_array_equal(gram(seen).numpy(), plain(seen))


@given(seed=st.integers(0, 2**32 - 1), users=st.integers(1, 40), items=st.integers(1, 30))
def test_it_equals_the_plain_product(seed: int, users: int, items: int) -> None:
    seen = ones(histories(users, items, seed))
    product = gram(seen)
    np.testing.assert_array_equal(product.numpy(), plain(seen))
    assert torch.equal(product, product.T)


def test_histories_are_taken_in_parts_that_cover_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = ones(histories(50, 12, seed=3))
    monkeypatch.setattr(kernel, "INTERACTIONS", 20)
    parts = kernel._parts(seen)
    assert sum(part.shape[0] for part in parts) == 50
    assert all(part.nnz <= 20 or part.shape[0] == 1 for part in parts)
    assert sum(part.nnz for part in parts) == seen.nnz


def test_an_entry_that_is_there_twice_is_refused() -> None:
    twice = csr_matrix((np.ones(2, np.float32), [1, 1], [0, 2]), shape=(1, 3))
    with pytest.raises(ValueError, match="distinct columns"):
        gram(twice)


def test_what_is_below_the_diagonal_becomes_what_is_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "BLOCK", 3)
    matrix = torch.rand(8, 8)
    above = matrix.triu()
    mirror(matrix)
    torch.testing.assert_close(matrix, above + above.triu(1).T, rtol=0, atol=0)


def test_memory_is_one_matrix_and_little_more() -> None:
    assert memory_needed(20_000, 10_000_000, "cpu") < 1.4 * 4 * 20_000**2
    assert memory_needed(20_000, 10_000_000, "cpu", torch.float64) < 1.2 * 8 * 20_000**2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_is_exact_for_ones_and_close_for_other_values() -> None:
    values = histories(3000, 1500, seed=8)
    np.testing.assert_array_equal(gram(ones(values), "cuda").cpu().numpy(), plain(ones(values)))
    np.testing.assert_allclose(gram(values, "cuda").cpu().numpy(), plain(values), rtol=1e-5)
