"""Dropout of interactions: what it keeps on average, what it touches, and what it leaves alone."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, random_array

from recae.autoencoder.batches import Batch, batch_of, unit_length
from recae.autoencoder.corruption import drop_interactions


def batch(users: int = 200, items: int = 100) -> Batch:
    return batch_of(csr_matrix(random_array((users, items), density=0.2, rng=np.random.default_rng(0))), "cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(batch: Batch, items: int = 100) -> torch.Tensor:
    whole = torch.zeros(len(batch), items)
    whole[batch.users, batch.items] = batch.values
    return whole


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_what_stays_is_scaled_and_the_expectation_with_it(rate: float) -> None:
    whole = unit_length(batch())
    before = dense(whole)

    after = dense(drop_interactions(whole, rate, generator()))

    stays = after != 0
    assert abs(float(stays.sum() / (before != 0).sum()) - (1 - rate)) < 0.03
    torch.testing.assert_close(after[stays], before[stays] / (1 - rate))
    mean = sum(dense(drop_interactions(whole, rate, generator(seed))) for seed in range(400)) / 400
    spread = before * np.sqrt(rate / (1 - rate) / 400)
    there = before > 0
    assert float(((mean - before).abs()[there] / spread[there]).max()) < 6


def test_only_interactions_are_drawn_for_and_those_that_go_are_gone() -> None:
    drawing, counting = generator(), generator()
    whole = batch()

    dropped = drop_interactions(whole, 0.5, drawing)
    torch.rand(len(whole.items), generator=counting)

    assert torch.equal(drawing.get_state(), counting.get_state())
    assert len(dropped) == len(whole)
    assert len(dropped.items) == len(dropped.users) == len(dropped.values) == int(dropped.offsets[-1])
    assert bool((dropped.values != 0).all())


def test_each_interaction_of_a_user_is_drawn_for_by_itself() -> None:
    whole = batch()
    dropped = drop_interactions(whole, 0.5, generator())

    assert 0 < int(dropped.offsets[1]) < int(whole.offsets[1])


def test_the_seed_decides() -> None:
    first, again, other = (dense(drop_interactions(batch(), 0.5, generator(seed))) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rate_zero_changes_nothing_and_draws_nothing() -> None:
    drawing, whole = generator(), batch()

    assert drop_interactions(whole, 0.0, drawing) is whole
    assert torch.equal(drawing.get_state(), generator().get_state())
