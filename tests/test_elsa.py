"""ELSA's loss, which is found without a reconstruction, next to the reconstruction; and what its scores promise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array, vstack
from torch import Tensor
from torch.nn.functional import normalize

from recae.autoencoder.batches import batch_of
from recae.errors import Interrupted
from recae.models.base import FitOptions
from recae.models.elsa import ELSA, UnitRows
from recae.progress import Step
from recae.validation import Validation

seeds = st.integers(0, 2**32 - 1)


def histories(seed: int, users: int = 30, items: int = 12) -> csr_matrix:
    """Histories of ones; the last is empty."""
    drawn = random_array((users - 1, items), density=0.4, rng=np.random.default_rng(seed)) > 0
    return vstack([csr_matrix(drawn, dtype=np.float32), csr_matrix((1, items), dtype=np.float32)], format="csr")


def plain(items: Tensor, seen: csr_matrix) -> Tensor:
    """Return each user's squared distance of unit history and unit reconstruction, from both whole."""
    x, a = torch.from_numpy(seen.toarray()).to(items.dtype), normalize(items, dim=1)
    return (normalize(x @ a @ a.T - x, dim=1) - normalize(x, dim=1)).square().sum(dim=1)


def network_of(items: Tensor) -> UnitRows:
    network = UnitRows(*items.shape)
    network.items = torch.nn.Parameter(items.clone())
    return network


@given(seed=seeds, factors=st.sampled_from([2, 5, 40]))
def test_the_loss_and_its_gradient_are_those_of_whole_reconstructions(seed: int, factors: int) -> None:
    seen = histories(seed)
    items = torch.randn(12, factors, generator=torch.Generator().manual_seed(seed))
    network = network_of(items)
    (phase,) = ELSA(factors=factors).phases(network)
    example = phase.objective.draw(batch_of(seen, "cpu"), torch.Generator())
    loss = phase.objective.loss(example, {})
    loss.sum().backward()
    exact = items.double().requires_grad_()
    wanted = plain(exact, seen)
    wanted.sum().backward()
    had = np.diff(seen.indptr) > 0
    torch.testing.assert_close(loss[had].double(), wanted[had], rtol=1e-3, atol=1e-4)
    assert exact.grad is not None
    torch.testing.assert_close(network.items.grad.double(), exact.grad, rtol=1e-2, atol=1e-3)
    # A user without a history is as far from anything as can be told, and teaches nothing.
    assert loss[-1] == 2


def test_a_part_of_a_batch_has_its_part_of_the_loss() -> None:
    network = network_of(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)))
    (phase,) = ELSA(factors=4).phases(network)
    example = phase.objective.draw(batch_of(histories(1), "cpu"), torch.Generator())
    whole = phase.objective.loss(example, {})
    torch.testing.assert_close(phase.objective.loss(example.part(7, 19), {}), whole[7:19])


def test_a_reconstruction_that_is_nothing_teaches_nothing() -> None:
    # Of one item alone x(AAᵀ - I) is zero, whatever its vector.
    network = network_of(torch.randn(1, 3, generator=torch.Generator().manual_seed(0)))
    (phase,) = ELSA(factors=3).phases(network)
    example = phase.objective.draw(batch_of(csr_matrix([[1.0]]), "cpu"), torch.Generator())
    phase.objective.loss(example, {}).sum().backward()
    torch.testing.assert_close(network.items.grad, torch.zeros(1, 3), rtol=0, atol=1e-3)


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_items_have_the_length_one(averaging: float) -> None:
    validation = Validation(histories(3), histories(4))
    model = ELSA(factors=4, epochs=3, averaging=averaging).fit(histories(2), FitOptions(validation=validation))
    torch.testing.assert_close(model.embed_items().norm(dim=1), torch.ones(12))
    assert torch.equal(model.embed_items(), model.state()["items"])


def test_scores_differ_from_the_papers_in_the_items_of_the_history_alone_by_one() -> None:
    seen = histories(5)
    model = ELSA(factors=4, epochs=2).fit(seen)
    x, a = torch.from_numpy(seen.toarray()), model.embed_items()
    torch.testing.assert_close(model.score(seen) - x, x @ (a @ a.T - torch.eye(12)), rtol=1e-4, atol=1e-5)
    tile = torch.empty(30, 4)
    model.score_by_tile(seen).write(3, tile)
    torch.testing.assert_close(tile, model.score(seen)[:, 3:7])


def test_learning_lowers_the_loss() -> None:
    curve = ELSA(factors=4, epochs=20, learning_rate=0.05).fit(histories(6)).training_.curve
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_an_interrupted_fit_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    seen, model = histories(7), ELSA(factors=4, epochs=4, averaging=0.5)
    whole = model.fit(seen).state()["items"].clone()

    def interrupt(step: Step) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    options = {"checkpoint": tmp_path / "checkpoint"}
    with pytest.raises(Interrupted, match="elsa: interrupted after 2 of at most 4 epochs"):
        model.fit(seen, FitOptions(listener=interrupt, **options))
    assert torch.equal(model.fit(seen, FitOptions(**options)).state()["items"], whole)
