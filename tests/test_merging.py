"""Events become entries the same way, whichever way they are sorted."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recae import merging
from recae.merging import merge

LARGEST = 2**31 - 1
codes = st.sampled_from([0, 1, 2, 3, 1000, LARGEST - 1])


@given(
    st.lists(st.tuples(codes, codes, st.integers(0, 3), st.integers(-2, 2)), max_size=20),
    st.sampled_from(["last", "first", "max", "sum", "mean"]),
    st.booleans(),
)
def test_both_ways_of_sorting_make_the_same_entries(rows: list[Any], rule: Any, timed: bool) -> None:
    users, items, values, times = (np.array([row[n] for row in rows], dtype=np.int64) for n in range(4))
    # A counting sort counts every code there could be: small ones here.
    users, items = (np.searchsorted(np.unique(column), column).astype(np.int32) for column in (users, items))
    arguments = (users, items, values.astype(np.float64), times if timed else None, rule)
    packed = merge(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "BITS", -1)
        counted = merge(*arguments)
    for one, other in zip(packed, counted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.dtype == other.dtype and one.tolist() == other.tolist()


@pytest.mark.parametrize("largest", [1, 2**20, LARGEST])
def test_codes_of_any_size_are_packed_whole(largest: int) -> None:
    users = np.array([largest, 0, largest, 0], dtype=np.int32)
    items = np.array([0, largest if largest < LARGEST else 1, 0, 0], dtype=np.int32)
    user, item, value, _ = merge(users, items, np.array([1.0, 2.0, 3.0, 4.0]), None, "last")
    assert user.tolist() == [0, 0, largest]
    assert item.tolist() == [0, items[1], 0]
    assert value.tolist() == [4.0, 2.0, 3.0]
