"""What is special to the sparse autoencoder: which units fire, what keeps others from it, what a unit stands for."""

from typing import Any

import numpy as np
import pytest
import torch
from checkerboard import checkerboard
from scipy.sparse import csr_matrix, random_array

from recae.autoencoder.batches import batch_of
from recae.autoencoder.likelihoods import Reconstruction
from recae.autoencoder.sparse import SparseNetwork, best_constant, divergence_from, excess, mean_read
from recae.errors import ModelError
from recae.histories import valued
from recae.models import build

KINDS: dict[str, dict[str, Any]] = {"l1": {"penalty": 0.1}, "kl": {"penalty": 0.1}, "top-k": {"active": 2}}


def histories(users: int = 50, items: int = 20, seed: int = 0) -> csr_matrix:
    drawn = csr_matrix(random_array((users, items), density=0.3, rng=np.random.default_rng(seed), dtype=np.float32))
    drawn.data[:] = 1
    return drawn


def communities(kinds: int = 4, each: int = 6, users: int = 30, seed: int = 0) -> csr_matrix:
    """Users who have five of the six items of one kind, and nothing else: what units should find."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((kinds * users, kinds * each), np.float32)
    for user in range(kinds * users):
        kind = user % kinds
        rows[user, kind * each + rng.choice(each, each - 1, replace=False)] = 1
    return csr_matrix(rows)


def small(sparsity: str, **others: Any) -> Any:
    settings = {"latent": 12, "learning_rate": 0.03, "epochs": 25, "batch_size": 30, **KINDS[sparsity], **others}
    return build("sparse-ae", sparsity=sparsity, **settings)


@pytest.mark.parametrize("sparsity", KINDS)
def test_every_kind_of_sparsity_learns_the_checkerboard(sparsity: str) -> None:
    board = checkerboard()
    scores = small(sparsity, epochs=80, penalty=0.01) if sparsity != "top-k" else small(sparsity, epochs=80)
    found = scores.fit(board.history).score(board.history).numpy()
    found[board.history.nonzero()] = -np.inf
    assert (found.argmax(axis=1) == np.arange(12)).all()


@pytest.mark.parametrize("active", [1, 3, 12])
def test_top_k_lets_through_the_largest_and_nothing_below_zero(active: int) -> None:
    network = SparseNetwork(20, 12, active=active).to_empty(device="cpu")
    network.initialise(torch.Generator().manual_seed(0))
    batch = network.read(batch_of(histories(), "cpu"))
    read = network.encoder(batch).detach().numpy()

    given = network.latent(batch).detach().numpy()

    expected = np.zeros_like(read)
    for user, row in enumerate(read):
        for unit in np.argsort(-row)[:active]:
            expected[user, unit] = max(row[unit], 0)
    np.testing.assert_array_equal(given, expected)
    assert (network.firing(torch.from_numpy(given)).sum(dim=1) <= active).all()


def test_the_curve_tells_how_many_units_fire_and_how_many_never_do() -> None:
    seen = histories()
    model = small("top-k", epochs=3).fit(seen)

    units = model.embed_users(seen)

    last = model.training_.curve[-1]
    assert last["units_firing"] == pytest.approx(float((units > 0).sum(dim=1).float().mean()), abs=1e-4)
    assert last["units_dead"] == pytest.approx(float(((units > 0).sum(dim=0) == 0).float().mean()))
    torch.testing.assert_close(model.units().fires, (units > 0).float().mean(dim=0))


@pytest.mark.parametrize("sparsity", ["l1", "kl"])
def test_a_larger_penalty_lets_units_give_less(sparsity: str) -> None:
    seen = histories()
    given = [float(small(sparsity, penalty=penalty).fit(seen).embed_users(seen).mean()) for penalty in (0.0, 0.3, 3.0)]
    wanted = [abs(mean - 0.05) for mean in given] if sparsity == "kl" else given
    assert wanted[2] < wanted[1] < wanted[0]


def test_the_divergence_and_its_slope_are_those_of_bernoulli_variables() -> None:
    mean = torch.tensor([0.01, 0.05, 0.5, 0.97], dtype=torch.float64, requires_grad=True)
    divergence, slope = divergence_from(0.05, mean.detach())
    wanted = torch.distributions.Bernoulli(probs=torch.full((4,), 0.05, dtype=torch.float64))
    theirs = torch.distributions.kl_divergence(wanted, torch.distributions.Bernoulli(probs=mean)).sum()
    theirs.backward()
    torch.testing.assert_close(divergence, theirs.detach())
    torch.testing.assert_close(slope, mean.grad)


def test_the_loss_with_a_divergence_is_the_same_in_parts() -> None:
    seen = valued(histories())
    model = small("kl", epochs=1, penalty=2.0, dropout=0.0).fit(seen)
    objective = model.phases(model.network_, seen)[0].objective
    example = objective.draw(batch_of(seen, "cpu"), torch.Generator())

    whole = objective.loss(example, {})
    parts = torch.cat([objective.loss(example.part(*ends), {}) for ends in ((0, 7), (7, 50))])

    torch.testing.assert_close(parts, whole)
    plain = small("kl", penalty=0.0, dropout=0.0)
    plain.network_ = model.network_
    misfit = plain.phases(model.network_, seen)[0].objective.loss(example, {})
    given = model.embed_users(seen).mean(dim=0)
    torch.testing.assert_close((whole - misfit).mean(), 2 * divergence_from(0.05, given)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sparsity", KINDS)
def test_units_are_named_by_the_items_that_go_together(sparsity: str) -> None:
    seen = communities()
    model = small(sparsity, epochs=40, dropout=0.0, **({"penalty": 0.02} if sparsity != "top-k" else {})).fit(seen)

    units = model.units(top=5)

    assert units.items.shape == units.weights.shape == (12, 5)
    weight = model.embed_items()[:, :-1]
    far = excess(weight)
    assert units.lifts is None
    for unit in range(12):
        assert units.items[unit].tolist() == torch.argsort(-far[:, unit])[:5].tolist()
        torch.testing.assert_close(units.excesses[unit], far[units.items[unit], unit])
        torch.testing.assert_close(units.weights[unit], weight[units.items[unit], unit])
    if sparsity == "top-k":
        firing = torch.nonzero(units.fires > 0.1).flatten()
        assert len(firing) >= 4
        kinds = units.items[firing] // 6
        assert (kinds == kinds[:, :1]).float().mean() > 0.8
        assert set(kinds[:, 0].tolist()) == {0, 1, 2, 3}


def planted(kinds: int = 4, each: int = 6, users: int = 50) -> tuple[csr_matrix, Any]:
    """Users of four kinds and a model with one unit for each: its six items, which one user of another kind has, too.

    Item 24 everybody has, and its output weight is the largest in every unit; item 25 one user has, of the first kind,
    and its weight is above 0, though hardly, in the first unit alone. The fifth unit fires for nobody.
    """
    rng = np.random.default_rng(0)
    seen = np.zeros((kinds * users, kinds * each + 2), np.float32)
    weight = np.zeros((kinds * each + 2, kinds + 1), np.float32)
    for kind in range(kinds):
        own = np.arange(kind * each, (kind + 1) * each)
        seen[kind * users : (kind + 1) * users, own] = 1
        seen[(kind + 1) % kinds * users + 1 + np.arange(each), own] = 1
        weight[own, kind] = 1
    seen[:, -2], seen[0, -1] = 1, 1
    reads = weight.copy()
    weight[:-2] += 0.1 * rng.random((kinds * each, kinds + 1))
    weight[-2] = 2 + 0.1 * rng.random(kinds + 1)
    weight[-1, 0] = 0.01
    model = build("sparse-ae", latent=kinds + 1, active=1)
    network = model.build_network(len(weight))
    state = {name: torch.zeros(tensor.shape) for name, tensor in network.state_dict().items()}
    state["encoder.input.weight"], state["decoder.output.weight"] = torch.from_numpy(reads), torch.from_numpy(weight)
    return csr_matrix(seen), model.restore(state)


@pytest.mark.parametrize("counted", [True, False])
def test_what_everybody_has_and_what_one_has_does_not_name_a_unit(counted: bool) -> None:
    seen, model = planted()
    units = model.units(top=6, histories=seen if counted else None)
    assert (model.embed_items()[:, :-1].argmax(dim=0) == 24).all()
    for unit in range(4):
        assert set(units.items[unit].tolist()) == set(range(6 * unit, 6 * unit + 6))
    if counted:
        # Of the 51 users who have an item 50 fire the unit; by chance a quarter would, and ten are added to both.
        torch.testing.assert_close(units.lifts[:4], torch.full((4, 6), 60 / (51 / 4 + 10)))
        assert units.fires.tolist() == [0.25] * 4 + [0]


def test_a_unit_that_fires_for_nobody_is_named_by_its_weights() -> None:
    seen, model = planted()
    counted, told = model.units(top=6, histories=seen), model.units(top=6)
    assert counted.items[4].tolist() == told.items[4].tolist()
    assert counted.lifts[4].tolist() == [1] * 6


def test_lifts_are_counted_in_blocks_whatever_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, model = planted()
    whole = model.units(top=26, histories=seen)
    monkeypatch.setattr("recae.autoencoder.sparse.AT_ONCE", 7)
    torch.testing.assert_close(vars(model.units(top=26, histories=5 * seen)), vars(whole))


def test_one_unit_alone_has_no_excess() -> None:
    assert excess(torch.tensor([[1.0], [2.0]])).tolist() == [[0], [0]]


def test_units_of_other_histories_and_more_items_than_there_are() -> None:
    seen = histories()
    model = small("top-k", epochs=2).fit(seen)
    some = model.units(top=99, histories=seen[:5])
    assert some.items.shape == (12, 20)
    torch.testing.assert_close(some.fires, (model.embed_users(seen[:5]) > 0).float().mean(dim=0))
    assert model.units(histories=seen[:0]).fires.tolist() == [0] * 12
    with pytest.raises(ValueError, match="knows 20 items"):
        model.units(histories=histories(items=21))


def test_many_histories_are_looked_at_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = small("top-k", epochs=1).fit(histories()), histories()
    whole = model.units(histories=seen).fires, mean_read(model.network_, seen)
    monkeypatch.setattr("recae.autoencoder.sparse.AT_ONCE", 7)
    torch.testing.assert_close((model.units(histories=seen).fires, mean_read(model.network_, seen)), whole)
    norms = np.sqrt(np.asarray(seen.multiply(seen).sum(axis=1)))
    np.testing.assert_allclose(whole[1], (seen.toarray() / np.maximum(norms, 1e-9)).mean(axis=0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "poisson", "multinomial"])
@pytest.mark.parametrize("unseen", [1.0, 0.3])
def test_the_first_bias_is_the_best_there_is_for_all_users_alike(likelihood: Any, unseen: float) -> None:
    if likelihood == "multinomial" and unseen != 1:
        pytest.skip("a multinomial has no such weight")
    seen = valued(histories())
    if likelihood == "gaussian":
        seen.data[:] = np.random.default_rng(0).normal(2, 1, seen.nnz).astype(np.float32)
    reconstruction = Reconstruction(likelihood, unseen)
    output = torch.nn.Linear(1, 20)
    torch.nn.init.zeros_(output.weight)
    output.bias.data = best_constant(reconstruction, seen)

    explained = reconstruction(torch.zeros(50, 1), output, batch_of(seen, "cpu")).sum()
    (slope,) = torch.autograd.grad(explained, output.bias)

    torch.testing.assert_close(slope, torch.zeros(20), atol=2e-4, rtol=0)


def test_an_item_nobody_has_begins_with_a_finite_bias() -> None:
    seen = csr_matrix(np.array([[1, 0, 1], [1, 0, 0]], np.float32))
    for likelihood in ("bernoulli", "gaussian", "poisson", "multinomial"):
        for unseen in (0.0, 1.0):
            assert best_constant(Reconstruction(likelihood, unseen), seen).isfinite().all()


def test_silent_units_are_woken_and_the_others_left_alone() -> None:
    network = SparseNetwork(20, 12, active=3).to_empty(device="cpu")
    network.initialise(torch.Generator().manual_seed(0))
    network.encoder.input.bias.data[:4] = -5
    batch = network.read(batch_of(histories(), "cpu"))
    silent = ~network.firing(network.latent(batch)).any(dim=0)
    before = network.encoder.input.bias.detach().clone()

    network.wake(batch)

    raised = network.encoder.input.bias.detach() > before
    assert silent[:4].all()
    assert torch.equal(raised, silent)
    for _ in range(2000):
        network.wake(batch)
    assert network.firing(network.latent(batch)).any(dim=0)[:4].sum() >= 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"penalty": 0.5}, "penalty = 0.5 is for sparsity = l1 or kl; give that, or leave it out"),
        ({"sparsity": "l1", "active": 5}, "active = 5 is for sparsity = top-k"),
        ({"sparsity": "l1", "activation": 0.1}, "activation = 0.1 is for sparsity = kl"),
        ({"sparsity": "kl", "active": 5}, "active = 5 is for sparsity = top-k"),
        ({"latent": 8, "active": 9}, "active = 9, and there are latent = 8 units; give fewer, or more units"),
        ({"sparsity": "l2"}, "sparsity = 'l2'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=f"sparse-ae: {said}"):
        build("sparse-ae", **settings)
