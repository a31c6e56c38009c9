"""Corruption: what each kind keeps on average, what it touches, what it leaves alone, and in which order they come."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, random_array

from recae.autoencoder.batches import Batch, batch_of, unit_length
from recae.autoencoder.corruption import Corruption, add_items, add_noise, drop_interactions, halves


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


def test_salt_joins_interactions_by_any_items_of_their_value() -> None:
    whole = batch().with_values(torch.arange(1.0, 1 + len(batch().items)))
    salted = add_items(whole, 0.3, 100, generator())

    added = len(salted.items) - len(whole.items)
    assert abs(added / len(whole.items) - 0.3) < 0.03
    assert len(salted) == len(whole)
    assert torch.equal(salted.users.bincount(minlength=len(salted)), salted.offsets.diff())
    first = torch.cat([torch.tensor([True]), salted.values.diff() != 0])
    assert torch.equal(salted.items[first], whole.items)
    assert torch.equal(salted.values[first], whole.values)
    assert salted.items[~first].bincount(minlength=100).float().std() < 3 * (added / 100) ** 0.5


def test_noise_is_normal_and_only_where_there_is_something() -> None:
    whole = batch().padded(len(batch().items) + 50)
    blurred = add_noise(whole, 0.5, generator())
    difference = (blurred.values - whole.values)[: len(batch().items)]

    assert not blurred.values[len(batch().items) :].any()
    assert abs(float(difference.mean())) < 0.03
    assert abs(float(difference.std()) - 0.5) < 0.02


def test_halves_share_nothing_and_miss_nothing() -> None:
    whole = batch()
    first, second = halves(whole, generator())

    assert not (dense(first) * dense(second)).any()
    assert torch.equal(dense(first) + dense(second), dense(whole))
    assert abs(len(first.items) / len(whole.items) - 0.5) < 0.03


def test_corruption_splits_then_blurs_and_salts_then_reads_then_hides() -> None:
    seen = []

    def read(shown: Batch) -> Batch:
        seen.append(shown)
        return unit_length(shown)

    whole = batch()
    shown, target = Corruption(0.5, salt=0.2, noise=0.1, half_split=True)(whole, 100, read, generator())

    assert not (dense(target) * (dense(target) - dense(whole))).any()  # what is reconstructed is as it was
    assert len(seen[0].items) > len(whole.items) - len(target.items)
    assert abs(len(shown.items) / len(seen[0].items) - 0.5) < 0.05
    untouched, same = Corruption(0.5, 0.2, 0.1).but_split()(whole, 100, unit_length, generator())
    assert same is whole
    assert torch.equal(dense(untouched), dense(unit_length(whole)))


def test_entries_that_are_none_stay_none() -> None:
    whole = batch()
    there = torch.rand(len(whole.items), generator=generator(3)) < 0.6
    zeros = whole.with_values(whole.values * there)  # as `keep` leaves them on CUDA

    assert not add_noise(zeros, 1.0, generator()).values[~there].any()
    salted = add_items(zeros, 1.0, 100, generator()).values.view(-1, 2)
    assert torch.equal(salted[:, 0], zeros.values)
    assert torch.equal(salted[:, 1], zeros.values)
