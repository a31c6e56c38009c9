"""What is special to CDAE: every user of the training has a vector, no other has, and how it is validated then."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, random_array, vstack

from recae.autoencoder.batches import batch_of
from recae.autoencoder.collaborative import CollaborativeNetwork
from recae.autoencoder.corruption import Corruption
from recae.errors import CannotFoldIn, Interrupted
from recae.models import build
from recae.models.base import FitOptions
from recae.models.cdae import CDAE
from recae.validation import Validation

SMALL = {"latent": 6, "learning_rate": 0.01, "batch_size": 16, "epochs": 3}


def histories(users: int = 40, items: int = 25, seed: int = 0) -> csr_matrix:
    drawn = csr_matrix(random_array((users, items), density=0.3, rng=np.random.default_rng(seed), dtype=np.float32))
    drawn.data[:] = 1
    return drawn


def halves(matrix: csr_matrix) -> Validation:
    """Return every other item of each history as the history, the rest as held out."""
    shown, held_out = matrix.copy(), matrix.copy()
    first = np.arange(matrix.nnz) % 2 == 0
    shown.data[~first], held_out.data[first] = 0, 0
    shown.eliminate_zeros()
    held_out.eliminate_zeros()
    return Validation(shown, held_out)


def fitted(seen: csr_matrix, options: FitOptions = FitOptions(), **settings: float) -> CDAE:
    model = build("cdae", **SMALL | settings)
    assert isinstance(model, CDAE)
    return model.fit(seen, options)


def test_the_hidden_layer_is_that_of_the_history_plus_the_user_s_vector() -> None:
    network = CollaborativeNetwork(25, 6, users=40).to_empty(device="cpu")
    network.initialise(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.user_vectors, generator=torch.Generator().manual_seed(1))
    seen, order = histories(), torch.tensor([7, 0, 31])
    batch = batch_of(seen, "cpu")

    found = network.latent(network.read(batch)).detach()

    unit = seen.toarray() / np.sqrt(seen.toarray().sum(axis=1, keepdims=True))
    read = torch.from_numpy(unit) @ network.encoder.input.weight + network.encoder.input.bias
    torch.testing.assert_close(found, torch.tanh(read + network.user_vectors).detach(), rtol=1e-4, atol=1e-5)
    some = batch_of(seen[order.numpy()], "cpu")
    torch.testing.assert_close(network.latent(network.read(replace(some, rows=order))), found[order])


def test_whatever_is_done_to_a_batch_its_users_stay_who_they_are() -> None:
    batch = batch_of(histories(), "cpu")
    everything = Corruption(dropout=0.5, salt=0.3, noise=0.2, half_split=True)
    shown, target = everything(batch, 25, lambda given: given, torch.Generator().manual_seed(0))
    for one in (shown, target, batch.padded(1000), batch.with_values(batch.values * 2)):
        assert one.rows.tolist() == list(range(40))
        assert one.part(3, 9).rows.tolist() == [3, 4, 5, 6, 7, 8]


def test_a_user_s_vector_is_learned_from_their_history_alone() -> None:
    seen = histories()
    other = vstack([seen[:5], seen[6], seen[6:]], format="csr")
    # One update in all: what a user's vector is after it depends on nothing but its own history.
    once = {"epochs": 1, "batch_size": 40, "dropout": 0.0}
    vectors = [fitted(given, **once).network_.user_vectors.detach() for given in (seen, other)]
    same = torch.isclose(*vectors, atol=1e-4).all(dim=1)
    assert not same[5]
    assert same[[row for row in range(40) if row != 5]].all()
    assert (vectors[0] != 0).any(dim=1).all()


def test_an_unknown_history_is_refused_in_one_line_and_an_empty_one_is_not() -> None:
    seen = histories()
    model = fitted(seen)
    new = histories(users=1, seed=9)
    with pytest.raises(CannotFoldIn, match="cdae was not trained on the history in row 2 of these 3") as refused:
        model.score(vstack([seen[:2], new], format="csr"))
    assert "\n" not in str(refused.value)
    assert "mult-dae" in str(refused.value)
    empty = csr_matrix((2, 25), dtype=np.float32)
    assert model.knows(vstack([seen[3], new, empty], format="csr")).tolist() == [True, False, True, True]
    torch.testing.assert_close(*model.score(empty))


def test_histories_are_known_in_any_order_and_twins_share_the_first_vector() -> None:
    seen = vstack([histories(), histories()[4]], format="csr")
    model = fitted(seen)
    vectors = model.embed_users(seen)
    assert torch.equal(vectors[40], vectors[4])
    backwards = model.embed_users(seen[::-1])
    torch.testing.assert_close(backwards, vectors.flip(0), rtol=1e-5, atol=1e-6)


def test_validation_histories_are_trained_on_so_that_they_can_be_judged() -> None:
    seen, watched = histories(), halves(histories(users=12, seed=3))
    model = fitted(seen, FitOptions(validation=watched))
    assert [sorted(figures) for figures in model.training_.curve] == [["loss", "ndcg_at_100", "seconds"]] * 3
    assert model.knows(watched.history).all()
    assert not model.knows(watched.held_out).any()
    assert model.state()["user_digests"].shape == (52, 16)
    together = fitted(vstack([seen, watched.history], format="csr"), epochs=1)
    assert torch.equal(fitted(seen, FitOptions(validation=watched), epochs=1).score(seen), together.score(seen))
    assert together.state()["user_vectors"].shape == (52, 6)


def test_validation_histories_that_are_trained_on_already_are_not_twice() -> None:
    seen = histories()
    known = fitted(seen, FitOptions(validation=Validation(seen[:9], histories(seed=4)[:9])))
    assert known.state()["user_digests"].shape == (40, 16)


def test_an_interrupted_fit_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def stop(step: object) -> None:
        if getattr(step, "done", 0) == 2:
            raise KeyboardInterrupt

    seen, watched = histories(), halves(histories(users=12, seed=3))
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Interrupted, match="after 2 of at most 3 epochs"):
        fitted(seen, FitOptions(validation=watched, checkpoint=checkpoint, listener=stop))
    resumed = fitted(seen, FitOptions(validation=watched, checkpoint=checkpoint))
    straight = fitted(seen, FitOptions(validation=watched))
    assert torch.equal(resumed.score(seen), straight.score(seen))


@pytest.mark.parametrize("missing", ["user_digests", "user_vectors"])
def test_a_state_without_its_users_is_refused(missing: str) -> None:
    state = fitted(histories()).state()
    del state[missing]
    with pytest.raises((ValueError, LookupError)):
        build("cdae", **SMALL).restore(state)
    with pytest.raises(ValueError, match="user_digests has the shape"):
        build("cdae", **SMALL).restore(state | {"user_digests": torch.zeros(3, 15, dtype=torch.uint8)})
