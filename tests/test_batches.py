"""Batches against the rows of the matrix they were cut from."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from recae.autoencoder.batches import Batch, Histories, batch_of, unit_length


def histories(seed: int, users: int = 9, items: int = 6, density: float = 0.4) -> csr_matrix:
    return csr_matrix(random_array((users, items), density=density, rng=np.random.default_rng(seed), dtype=np.float32))


def dense(batch: Batch, items: int) -> np.ndarray:
    rows = np.zeros((len(batch), items), np.float32)
    np.add.at(rows, (batch.users.numpy(), batch.items.numpy()), batch.values.numpy())
    return rows


@given(seed=st.integers(0, 10_000), chosen=st.lists(st.integers(0, 8), max_size=12))
def test_a_batch_is_the_chosen_rows_in_order(seed: int, chosen: list[int]) -> None:
    matrix = histories(seed)

    batch = Histories.of(matrix, "cpu").batch(torch.tensor(chosen, dtype=torch.int64))

    np.testing.assert_array_equal(dense(batch, 6), matrix.toarray()[chosen].reshape(-1, 6))
    assert batch.offsets.diff().tolist() == np.diff(matrix.indptr)[chosen].tolist()


def test_unit_length_divides_by_the_norm_and_leaves_the_empty_alone() -> None:
    matrix = csr_matrix(np.array([[3, 0, 4], [0, 0, 0], [0, 2, 0]], np.float32))

    found = dense(unit_length(batch_of(matrix, "cpu")), 3)

    np.testing.assert_allclose(found, [[0.6, 0, 0.8], [0, 0, 0], [0, 1, 0]], rtol=1e-6)


def test_sums_by_user() -> None:
    batch = batch_of(csr_matrix(np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]], np.float32)), "cpu")

    assert batch.sum_by_user(torch.tensor([1.0, 2.0, 5.0])).tolist() == [3, 0, 5]
