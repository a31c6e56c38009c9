"""item-mean: by hand, and what damping and zeros do."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recae.models.item_mean import ItemMean

MISSING = np.nan


def rated(rows: list[list[float]]) -> csr_matrix:
    """Return a matrix with an entry wherever there is a number, zeros among them."""
    table = np.array(rows, np.float32)
    there = ~np.isnan(table)
    ends = np.append(0, np.cumsum(there.sum(axis=1)))
    return csr_matrix((table[there], np.nonzero(there)[1], ends), shape=table.shape)


TABLE = [[4.0, 0.0, MISSING], [2.0, MISSING, -3.0], [MISSING, 1.0, MISSING]]


def test_undamped_it_is_the_item_s_mean_and_the_user_s_mean_distance_from_that() -> None:
    model = ItemMean(item_damping=0, user_damping=0).fit(rated(TABLE))
    means = torch.tensor([3.0, 0.5, -3.0])
    torch.testing.assert_close(model.item_means_, means)
    offsets = torch.tensor([(1 - 0.5) / 2, (-1 + 0) / 2, 0.5])
    torch.testing.assert_close(model.predict(rated(TABLE)), means + offsets[:, None])


def test_damping_is_that_many_values_without_an_offset() -> None:
    model = ItemMean(item_damping=2, user_damping=3).fit(rated(TABLE))
    mean = (4 + 0 + 2 - 3 + 1) / 5
    means = [mean + sum(value - mean for value in of) / (2 + len(of)) for of in ([4, 2], [0, 1], [-3])]
    assert model.item_means_.tolist() == pytest.approx(means)
    offset = (4 - means[0] + 0 - means[1]) / (3 + 2)
    assert model.predict(rated(TABLE))[0].tolist() == pytest.approx([one + offset for one in means])


def test_an_item_and_a_user_without_values_get_the_overall_mean_and_no_offset() -> None:
    model = ItemMean().fit(rated([[5.0, MISSING], [3.0, MISSING]]))
    assert model.item_means_[1] == 4
    assert torch.equal(model.predict(csr_matrix((1, 2)))[0], model.item_means_)


def test_a_zero_that_is_stored_is_a_value() -> None:
    model = ItemMean(item_damping=0, user_damping=0).fit(rated([[0.0, 2.0], [0.0, 4.0]]))
    assert model.item_means_.tolist() == [0, 3]
    low, none = rated([[0.0, MISSING]]), csr_matrix((1, 2))
    torch.testing.assert_close(model.predict(low), model.predict(none))
    assert model.predict(rated([[MISSING, 0.0]]))[0].tolist() == [-3, 0]
