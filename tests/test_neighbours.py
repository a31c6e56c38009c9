"""The neighbours found from meetings next to the plain way, which makes all similarities dense."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, random_array

from recae.kernels import gram
from recae.kernels import neighbours as kernel
from recae.kernels.neighbours import memory_needed, nearest

seeds = st.integers(0, 2**32 - 1)


def plain(seen: csr_matrix, count: int, shrinkage: float) -> NDArray[np.float32]:
    """Every similarity in float64, and of each row the first `count` in the order of a stable sort."""
    dense = seen.toarray().astype(np.float64)
    root = np.sqrt(dense.sum(axis=0))
    similarities = dense.T @ dense / np.maximum(np.outer(root, root) + shrinkage, 1e-12)
    np.fill_diagonal(similarities, 0)
    for row in similarities:
        row[np.argsort(-row, kind="stable")[count:]] = 0
    return similarities.astype(np.float32)


def histories(users: int, items: int, density: float, seed: int) -> csr_matrix:
    """Histories of ones, in which some items are far more popular than others, and some nobody has."""
    random = np.random.default_rng(seed)
    share = density * random.random(items) ** 3
    seen = csr_matrix((random.random((users, items)) < share).astype(np.float32))
    seen.sort_indices()
    return seen


@contextmanager
def added_up(way: str) -> Iterator[None]:
    """Add up rows in one way, or in both, in blocks of next to nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "MANY", {"few": 10**6, "many": 0, "both": 1}[way])
        patch.setattr(kernel, "BLOCK", 100)
        yield


ways = pytest.mark.parametrize("way", ["few", "many", "both"])


@ways
@given(
    seed=seeds,
    users=st.integers(1, 60),
    items=st.integers(1, 40),
    density=st.sampled_from([0.05, 0.3, 1.0, 3.0]),
    count=st.integers(1, 45),
    shrinkage=st.sampled_from([0.0, 3.5, 1e8]),
)
def test_they_are_those_of_the_plain_way_bit_for_bit(
    way: str, seed: int, users: int, items: int, density: float, count: int, shrinkage: float
) -> None:
    seen = histories(users, items, density, seed)
    with added_up(way):
        found = nearest(seen, count, shrinkage)
    np.testing.assert_array_equal(found.toarray(), plain(seen, count, shrinkage))
    assert found.nnz == np.count_nonzero(found.data) == np.count_nonzero(found.toarray())


@ways
def test_the_first_columns_are_taken_among_equals(way: str) -> None:
    with added_up(way):
        found = nearest(csr_matrix(np.ones((3, 9), np.float32)), 4, 0.0).toarray()
    assert [np.flatnonzero(row).tolist() for row in found[[0, 2, 8]]] == [[1, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 3]]


@ways
@pytest.mark.parametrize("columns", [[0, 1, 2, 3], [0, 2, 1, 3]])
def test_of_a_rare_and_a_popular_item_that_are_equals_the_first_is_taken(way: str, columns: list[int]) -> None:
    seen = np.zeros((8, 4), np.float32)
    seen[[0, 1, 2, 3], 0] = 1
    seen[[0, 1, 4, 5], 1] = 1  # 2 / √(4 · 4)
    seen[2, 2] = 1  # 1 / √(4 · 1)
    seen[[3, 6, 7], 3] = 1  # less
    with added_up(way):
        found = nearest(csr_matrix(seen[:, columns]), 1, 0.0)
    assert np.flatnonzero(found.toarray()[0]).tolist() == [1]


@ways
def test_what_only_float64_can_tell_apart_is_told_apart(way: str) -> None:
    seen = np.zeros((4, 3), np.float32)
    seen[[0, 1, 2], 0] = seen[[0, 1, 3], 1] = seen[[0, 1], 2] = 1
    with added_up(way):
        both, best = (nearest(csr_matrix(seen), count, 1e8).toarray()[0] for count in (2, 1))
    assert both[1] == both[2]  # 2 / (√9 + 10⁸) and 2 / (√6 + 10⁸)
    assert np.flatnonzero(best).tolist() == [2]


@pytest.mark.parametrize("mkl", [True, False])
def test_dense_rows_do_not_need_mkl(mkl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "HAS_MKL", mkl and gram.HAS_MKL)
    monkeypatch.setattr(kernel, "MANY", 0)
    seen = histories(50, 30, 1.0, seed=3)
    np.testing.assert_array_equal(nearest(seen, 5, 0.0).toarray(), plain(seen, 5, 0.0))


def test_users_are_counted_in_parts_beyond_what_float32_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MANY", 0)
    monkeypatch.setattr(kernel, "COUNTED", 7)
    seen = histories(50, 30, 1.0, seed=3)
    np.testing.assert_array_equal(nearest(seen, 5, 0.0).toarray(), plain(seen, 5, 0.0))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_blocks_make_no_difference(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = histories(200, 90, 0.3, seed=1)
    whole = nearest(seen, 7, 0.0)
    before = torch.get_num_threads()
    monkeypatch.setattr(kernel, "BLOCK", 50)
    torch.set_num_threads(threads)
    try:
        cut = nearest(seen, 7, 0.0)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(cut.indptr, whole.indptr)
    np.testing.assert_array_equal(cut.indices, whole.indices)
    np.testing.assert_array_equal(cut.data, whole.data)


def test_blocks_end_where_numbers_of_32_bits_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "KEYS", 90)
    seen = csr_matrix(random_array((60, 40), density=0.02, rng=np.random.default_rng(0)), dtype=np.float32)
    seen.data.fill(1)
    seen.sort_indices()
    np.testing.assert_array_equal(nearest(seen, 3, 0.0).toarray(), plain(seen, 3, 0.0))


def test_nobody_met_anybody() -> None:
    alone = csr_matrix(np.eye(5, 8, dtype=np.float32))
    assert nearest(alone, 3, 0.0).nnz == 0
    assert nearest(csr_matrix((4, 3), dtype=np.float32), 3, 0.0).shape == (3, 3)


def test_memory_is_that_of_the_neighbours_there_can_be() -> None:
    rare = csr_matrix(np.eye(30, 1000, dtype=np.float32))
    assert memory_needed(rare, 200) == memory_needed(rare, 1)
    popular = csr_matrix(np.ones((2, 1000), dtype=np.float32))
    assert memory_needed(popular, 200) - memory_needed(popular, 100) == 16 * 100 * 1000
