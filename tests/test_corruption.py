"""Dropout of interactions: what it keeps on average, what it touches, and what it leaves alone."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, random_array

from recae.autoencoder.batches import batch_of, unit_length
from recae.autoencoder.corruption import drop_interactions


def batch(users: int = 200, items: int = 100):
    return batch_of(csr_matrix(random_array((users, items), density=0.2, rng=np.random.default_rng(0))), "cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_what_stays_is_scaled_and_the_expectation_with_it(rate: float) -> None:
    whole = unit_length(batch())

    dropped = drop_interactions(whole, rate, generator())

    stays = dropped.values != 0
    assert abs(float(stays.float().mean()) - (1 - rate)) < 0.03
    torch.testing.assert_close(dropped.values[stays], whole.values[stays] / (1 - rate))
    draws = torch.stack([drop_interactions(whole, rate, generator(seed)).values for seed in range(400)])
    spread = whole.values * np.sqrt(rate / (1 - rate) / 400)
    assert float(((draws.mean(0) - whole.values).abs() / spread).max()) < 6


def test_only_interactions_are_drawn_for_not_the_zeros_between_them() -> None:
    drawing, counting = generator(), generator()
    whole = batch()

    dropped = drop_interactions(whole, 0.5, drawing)
    torch.rand(len(whole.items), generator=counting)

    assert torch.equal(drawing.get_state(), counting.get_state())
    assert torch.equal(dropped.items, whole.items)
    assert torch.equal(dropped.offsets, whole.offsets)


def test_each_interaction_of_a_user_is_drawn_for_by_itself() -> None:
    stays = drop_interactions(batch(), 0.5, generator()).values != 0

    assert 0 < int(stays[:10].sum()) < 10


def test_the_seed_decides() -> None:
    first, again, other = (drop_interactions(batch(), 0.5, generator(seed)).values for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rate_zero_changes_nothing_and_draws_nothing() -> None:
    drawing, whole = generator(), batch()

    assert drop_interactions(whole, 0.0, drawing) is whole
    assert torch.equal(drawing.get_state(), generator().get_state())
