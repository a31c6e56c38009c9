"""Updates that are played back, against the same updates made one by one; and where histories stay."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array
from torch import Tensor

from recae.autoencoder import recorded, streamed
from recae.autoencoder.batches import Batch, Histories, unit_length
from recae.autoencoder.recorded import FIRST, RecordedUpdate, usual_room
from recae.autoencoder.streamed import Streamed, place
from recae.errors import NotRecorded
from recae.models.base import FitOptions
from recae.models.mult_vae import MultVAE


def histories(seed: int, users: int = 23, items: int = 9) -> csr_matrix:
    return csr_matrix(random_array((users, items), density=0.3, rng=np.random.default_rng(seed), dtype=np.float32))


def parts(batch: Batch) -> tuple[Tensor, ...]:
    return batch.offsets, batch.users, batch.items, batch.values


@given(seed=st.integers(0, 1000), size=st.integers(1, 25))
def test_streamed_batches_are_those_cut_on_the_device(seed: int, size: int) -> None:
    here = Histories.of(histories(seed), "cpu")
    order = torch.randperm(len(here), generator=torch.Generator().manual_seed(seed))

    streaming = list(Streamed(here, torch.device("cpu")).batches(order, size))

    resident = list(here.batches(order, size))
    assert len(streaming) == len(resident) == -(-len(here) // size)
    for one, other, chosen in zip(streaming, resident, order.split(size), strict=True):
        for a, b, c in zip(parts(one), parts(other), parts(here.batch(chosen)), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)


def test_a_reader_may_stop_in_the_middle_of_a_stream() -> None:
    stream = Streamed(Histories.of(histories(1), "cpu"), torch.device("cpu")).batches(torch.arange(23), 2)
    assert len(next(stream)) == 2
    stream.close()


def test_histories_stream_where_they_would_take_too_much_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = histories(0)
    needed = 8 * (23 + 1) + 8 * matrix.nnz
    monkeypatch.setattr(streamed, "available_memory", lambda device: int(needed / streamed.SHARE) - 1)

    assert isinstance(place(matrix, "cuda"), Streamed)
    assert isinstance(place(matrix, "cpu"), Histories)


@given(seed=st.integers(0, 1000), spare=st.integers(0, 50))
def test_a_padded_batch_means_the_same(seed: int, spare: int) -> None:
    batch = Histories.of(histories(seed), "cpu").batch(torch.arange(23))

    padded = batch.padded(len(batch.items) + spare)

    assert all(len(part) == len(batch.items) + spare for part in (padded.users, padded.items, padded.values))
    assert torch.equal(padded.sum_by_user(padded.values), batch.sum_by_user(batch.values))
    of_unit = unit_length(padded).values
    assert torch.equal(of_unit[: len(batch.items)], unit_length(batch).values)
    assert not of_unit[len(batch.items) :].any()


def test_a_network_learns_the_same_from_a_padded_batch() -> None:
    batch = Histories.of(histories(3), "cpu").batch(torch.arange(23))
    model = MultVAE(hidden=(7,), latent=3, dropout=0.0)
    network = model.build_network(9)
    network.to_empty(device="cpu").initialise(torch.Generator().manual_seed(0))
    (phase,) = model.phases(network, histories(3))

    def learned(batch: Batch) -> list[Tensor]:
        network.zero_grad()
        example = phase.objective.draw(batch, torch.Generator().manual_seed(1))
        loss = phase.objective.loss(example, {"kl_weight": 0.3})
        loss.sum().backward()
        return [loss.detach(), *(parameter.grad for parameter in network.parameters())]

    for padded, exact in zip(learned(batch.padded(100)), learned(batch), strict=True):
        torch.testing.assert_close(padded, exact)


@given(seed=st.integers(0, 1000), users=st.integers(1, 23))
def test_there_is_room_for_any_batch_of_all_and_for_nearly_all_others(seed: int, users: int) -> None:
    lengths = Histories.of(histories(seed), "cpu").lengths()
    draw = torch.Generator().manual_seed(seed)

    room = usual_room(lengths, users)

    assert usual_room(lengths, 23) == lengths.sum()
    found = [int(lengths[torch.randperm(23, generator=draw)[:users]].sum()) for _ in range(50)]
    assert np.mean([count > room for count in found]) < 0.05
    assert room <= lengths.topk(users).values.sum()


class Learner:
    """Something to train: one number, moved by what a batch and a schedule say."""

    def __init__(self) -> None:
        self.weight = torch.zeros(())
        self.seen: list[tuple[int, int]] = []

    def update(self, batch: Batch, schedule: dict[str, float]) -> Tensor:
        self.seen.append((len(batch), len(batch.items)))
        loss = (batch.sum_by_user(batch.values * (batch.items + 1)) * (1 + schedule["weight"])).sum()
        self.weight += loss - 0.1 * self.weight
        return loss


@pytest.mark.parametrize("room", [5, 13, 60])
def test_played_back_updates_do_what_they_do_one_by_one(room: int) -> None:
    """The recorder of this test plays back by doing the work again on the memory it was recorded with."""
    here = Histories.of(histories(4), "cpu")
    recordings = itertools.count()
    one, other = Learner(), Learner()

    def record(work):
        next(recordings)
        return work

    played = RecordedUpdate(one.update, 4, room, record)
    order = torch.arange(23).repeat(3)
    for number, batch in enumerate(here.batches(order, 4)):
        schedule = {"weight": number / 7}
        assert float(played(batch, schedule)) == pytest.approx(float(other.update(batch, schedule)), rel=1e-6)
    assert float(one.weight) == pytest.approx(float(other.weight), rel=1e-6)
    fitting = sum(users == 4 and entries <= room for users, entries in other.seen)
    assert next(recordings) == (fitting > FIRST)
    assert len(one.seen) == len(other.seen)


def test_where_recording_fails_updates_go_on_with_one_warning() -> None:
    here = Histories.of(histories(4), "cpu")
    one, other = Learner(), Learner()

    def record(work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    played = RecordedUpdate(one.update, 4, 60, record)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for batch in here.batches(torch.arange(20).repeat(2), 4):
            played(batch, {"weight": 0.5})
            other.update(batch, {"weight": 0.5})
    assert float(one.weight) == pytest.approx(float(other.weight), rel=1e-6)
    assert [warning.category for warning in caught] == [NotRecorded]
    assert "\n" not in str(caught[0].message)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("stream", [False, True])
def test_a_training_on_cuda_ends_with_the_same_bits_recorded_streamed_or_neither(stream, monkeypatch) -> None:
    matrix = histories(5, users=300, items=70)
    matrix.data[:] = 1

    def fitted() -> dict[str, Tensor]:
        model = MultVAE(hidden=(32,), latent=8, batch_size=20, epochs=3)
        return model.fit(matrix, FitOptions(device="cuda", seed=1)).state()

    expected = fitted()
    monkeypatch.setattr(recorded, "FIRST", 10**9)
    if stream:
        monkeypatch.setattr(streamed, "SHARE", 0.0)
    for name, tensor in fitted().items():
        assert torch.equal(tensor, expected[name]), name
