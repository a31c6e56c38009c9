"""The promises of every model: a new one joins by its line in MODELS, and its small settings here."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from checkerboard import checkerboard
from safetensors.torch import load, save
from scipy.sparse import csr_array, csr_matrix, random_array, vstack

from recae.errors import CannotEmbed, CannotFoldIn, CannotPredict, ModelError
from recae.models import MODELS, build
from recae.models.base import Embedder, FitOptions, Recommender, Transductive, hyper_parameters_of
from recae.ranking import top_n

SMALL: Mapping[str, dict[str, Any]] = {
    "item-knn": {"neighbours": 6},
    "als": {"factors": 8, "regularization": 1.0, "alpha": 5.0},
    "rating-als": {"factors": 8, "regularization": 0.01, "iterations": 5},
    "bpr": {"factors": 8, "learning_rate": 0.1, "regularization": 0.0, "iterations": 5},
    "ease": {"l2": 1.0},
    "edlae": {"l2": 1.0},
    "rdlae": {"l2": 1.0},
    "elsa": {"factors": 8, "epochs": 2},
    "spectral": {"factors": 8, "sharpening": 0.5},
    "infinite-ae": {"l2": 0.1},
    "kernel-ae": {"l2": 1.0, "kernel_l2": 0.1},
    "autoencoder": {"latent": 8, "learning_rate": 0.01, "epochs": 2},
    "sparse-ae": {"latent": 8, "active": 4, "learning_rate": 0.01, "epochs": 2},
    "mult-dae": {"latent": 8, "learning_rate": 0.01, "epochs": 2},
    "cdae": {"latent": 8, "learning_rate": 0.01, "epochs": 2},
    "mult-vae": {"hidden": (16,), "latent": 8, "learning_rate": 0.01, "epochs": 2, "kl_cap": 0.01},
    "rec-vae": {"hidden": 16, "layers": 3, "latent": 8, "learning_rate": 0.01, "epochs": 2},
    "vamp-vae": {"hidden": 16, "latent": 8, "pseudo_inputs": 5, "learning_rate": 0.01, "epochs": 2, "averaging": 0.0},
    "hybrid": {"hidden": 16, "layers": 3, "latent": 8, "learning_rate": 0.01, "epochs": 2, "averaging": 0.0, "l2": 1.0}
    | {"kernel_l2": 0.1},
}
"""Settings that are quick."""

VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "spectral without a low pass": ("spectral", {"alpha": 0.0}),
    "infinite-ae of some": ("infinite-ae", {"landmarks": 12}),
    "kernel-ae of some": ("kernel-ae", {"landmarks": 12}),
    "kernel-ae of histories alone": ("kernel-ae", {"linear_items": 0}),
    "sparse-ae by l1": ("sparse-ae", {"sparsity": "l1", "active": 100}),
    "sparse-ae by kl": ("sparse-ae", {"sparsity": "kl", "active": 100}),
    "mult-dae, tied": ("mult-dae", {"hidden": (16,), "tied": True}),
    "mult-dae, sampled": ("mult-dae", {"negatives": 4}),
    "mult-dae, averaged": ("mult-dae", {"averaging": 0.5}),
    "mult-vae from a warm start": ("mult-vae", {"hidden": (), "warm_start": True}),
    "hybrid of many items": ("hybrid", {"linear_items": 0, "hidden": None, "layers": None, "averaging": None}),
}
"""Other ways to the same promises, by what they are called here: the model, and its settings beside the small ones."""

SAMPLED = "mult-dae, sampled"
"""The one that needs more items than it draws."""

ENOUGH: Mapping[str, dict[str, Any]] = {
    "bpr": {"iterations": 300},
    "autoencoder": {"epochs": 100},
    "sparse-ae": {"epochs": 100},
    "elsa": {"epochs": 100},
    "mult-dae": {"epochs": 100},
    "cdae": {"epochs": 100},
    "mult-vae": {"epochs": 100},
    "rec-vae": {"epochs": 100},
    "vamp-vae": {"epochs": 100},
    "hybrid": {"epochs": 100},
}
"""What else it takes to learn a checkerboard."""

CONTROLS = {"random", "popularity", "item-mean"}
"""Models that cannot learn a checkerboard: they show that a model can fail it."""

OF_VALUES = {"item-mean", "rating-als"}
"""Models of observed values, to whom a history of ones says nothing: theirs hold ratings, a zero among them."""

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")],
    ),
]

EVERY = list(MODELS)
ALL = [*EVERY, *VARIANTS]
FOLDING_IN = [name for name in MODELS if MODELS[name].folds_in]
LEARNING = [name for name in MODELS if name not in CONTROLS]
NETWORKS = [name for name in MODELS if "likelihood" in hyper_parameters_of(build(name))]
EMBEDDING = [name for name in MODELS if hasattr(MODELS[name], "embed_users")]
OF_FULL_RANK = {"hybrid"}
"""Embedders whose score is no product of vectors: they have latent embeddings, and refuse the others."""


def small(name: str, **others: Any) -> Recommender:
    model, settings = VARIANTS.get(name, (name, {}))
    return build(model, **{**SMALL.get(model, {}), **settings, **others})


def enough(name: str) -> dict[str, Any]:
    return ENOUGH.get(VARIANTS.get(name, (name, {}))[0], {})


def histories(users: int = 40, items: int = 25, seed: int = 0, *, of: str = "") -> csr_matrix:
    """Histories of all lengths, for a model of that name; the last is empty."""
    drawn = random_array((users - 1, items), density=0.3, rng=np.random.default_rng(seed), dtype=np.float32)
    seen = vstack([csr_matrix(drawn), csr_matrix((1, items), dtype=np.float32)], format="csr")
    seen.data[:] = np.random.default_rng(seed).integers(-5, 6, seen.nnz) if of in OF_VALUES else 1
    return seen


@pytest.fixture(scope="module")
def fitted() -> Mapping[str, Recommender]:
    return {name: small(name).fit(histories(of=name)) for name in ALL}


def recall_at_1(model: Recommender, history: csr_matrix, held_out: csr_matrix) -> float:
    scores = model.score(history).cpu().numpy().copy()
    scores[history.nonzero()] = -np.inf
    best = scores.argmax(axis=1)
    return float(np.mean([held_out[user, item] > 0 for user, item in enumerate(best)]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ALL)
def test_a_checkerboard_is_learned_unless_the_model_is_a_control(name: str, device: str) -> None:
    board = checkerboard(rated=name in OF_VALUES)
    model = small(name, **enough(name))
    assert model.fit(board.history, FitOptions(device=device)) is model
    assert model.score(board.history).device.type == device
    if name in CONTROLS:
        assert recall_at_1(model, board.history, board.held_out) < 0.5
    else:
        assert recall_at_1(model, board.history, board.held_out) == 1


@pytest.mark.parametrize("name", ALL)
def test_scores_are_finite_float32_users_by_items(name: str, fitted: Mapping[str, Recommender]) -> None:
    scores = fitted[name].score(histories(of=name))
    assert scores.dtype == torch.float32
    assert scores.shape == (40, 25)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", ALL)
def test_an_empty_history_and_no_history_at_all_are_scored(name: str, fitted: Mapping[str, Recommender]) -> None:
    empty = fitted[name].score(csr_matrix((3, 25), dtype=np.float32))
    assert torch.isfinite(empty).all()
    torch.testing.assert_close(empty[0], empty[2], rtol=1e-5, atol=1e-6)
    none = fitted[name].score(csr_matrix((0, 25), dtype=np.float32))
    assert none.shape == (0, 25)
    assert none.dtype == torch.float32


@pytest.mark.parametrize("name", ALL)
def test_a_history_is_scored_alike_in_any_block(name: str, fitted: Mapping[str, Recommender]) -> None:
    model, seen = fitted[name], histories(of=name)
    together = model.score(seen)
    apart = torch.cat([model.score(seen[row]) for row in range(seen.shape[0])])
    rounding = 1e-6 * max(1.0, float(together.abs().max()))
    torch.testing.assert_close(apart, together, rtol=1e-5, atol=rounding)
    backwards = model.score(seen[::-1]).flip(0)
    torch.testing.assert_close(backwards, together, rtol=1e-5, atol=rounding)
    whole = top_n(model.score, seen, 25)
    for block in (1, 7):
        assert np.array_equal(top_n(model.score, seen, 25, block=block).items, whole.items)


@pytest.mark.parametrize("name", ALL)
def test_histories_of_any_spelling_are_the_same_histories(name: str, fitted: Mapping[str, Recommender]) -> None:
    seen = histories(of=name)
    scores = fitted[name].score(seen)
    wide = seen.astype(np.float64)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    order = np.concatenate([np.arange(*ends)[::-1] for ends in zip(seen.indptr[:-1], seen.indptr[1:], strict=True)])
    unsorted = csr_matrix((seen.data[order], seen.indices[order], seen.indptr), shape=seen.shape)
    half = csr_matrix((np.repeat(seen.data / 2, 2), np.repeat(seen.indices, 2), 2 * seen.indptr), shape=seen.shape)
    zeros = csr_matrix(seen + csr_matrix(np.ones(seen.shape, dtype=np.float32)))
    zeros.data -= 1
    # A zero that is stored, or that became a one, is another rating.
    others = [] if name in OF_VALUES else [seen.astype(bool), zeros]
    for spelling in (wide, unsorted, half, csr_array(seen), *others):
        assert torch.equal(fitted[name].score(spelling), scores)


@pytest.mark.parametrize("name", ALL)
def test_histories_are_left_as_they_were(name: str) -> None:
    seen = histories(of=name)
    order = np.concatenate([np.arange(*ends)[::-1] for ends in zip(seen.indptr[:-1], seen.indptr[1:], strict=True)])
    given = csr_matrix((seen.data[order], seen.indices[order], seen.indptr), shape=seen.shape)
    before = [array.copy() for array in (given.data, given.indices, given.indptr)]
    for array in (given.data, given.indices, given.indptr):
        array.flags.writeable = False
    model = small(name).fit(given)
    model.score(given)
    if isinstance(model, Embedder):
        model.embed_users(given)
    for array, kept in zip((given.data, given.indices, given.indptr), before, strict=True):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("name", ALL)
def test_scores_belong_to_the_caller(name: str, fitted: Mapping[str, Recommender]) -> None:
    seen = histories(of=name)
    first = fitted[name].score(seen)
    kept = first.clone()
    first.fill_(-torch.inf)
    assert torch.equal(fitted[name].score(seen), kept)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(30, 13), (70, 60)])
def test_a_second_fit_starts_afresh_on_any_shape(name: str, shape: tuple[int, int]) -> None:
    other = histories(*shape, seed=5, of=name)
    refitted = small(name).fit(histories(of=name)).fit(other)
    assert torch.equal(refitted.score(other), small(name).fit(other).score(other))


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_scores_bit_for_bit(name: str, fitted: Mapping[str, Recommender]) -> None:
    again = small(name).fit(histories(of=name), FitOptions(seed=FitOptions().seed))
    assert torch.equal(again.score(histories(of=name)), fitted[name].score(histories(of=name)))


@pytest.mark.parametrize("name", ["random", *EMBEDDING])
def test_another_seed_gives_other_scores(name: str, fitted: Mapping[str, Recommender]) -> None:
    other = small(name).fit(histories(of=name), FitOptions(seed=7))
    assert not torch.equal(other.score(histories(of=name)), fitted[name].score(histories(of=name)))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("items", [24, 26, 0])
def test_histories_of_another_width_are_refused(name: str, items: int, fitted: Mapping[str, Recommender]) -> None:
    model, other = fitted[name], csr_matrix((2, items), dtype=np.float32)
    with pytest.raises(ValueError, match=f"{name} knows 25 items; these histories have {items} columns"):
        model.score(other)
    if isinstance(model, Embedder):
        with pytest.raises(ValueError, match="knows 25 items"):
            model.embed_users(other)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (5, 5)])
def test_nothing_to_learn_from_is_refused(name: str, shape: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match=f"{name} has nothing to learn from: {shape[0]} users × {shape[1]} items"):
        small(name).fit(csr_matrix(shape, dtype=np.float32))


@pytest.mark.parametrize("name", [name for name in EVERY if name not in OF_VALUES])
@pytest.mark.parametrize("value", [0.0, 1e-300])
def test_values_of_which_nothing_is_left_are_nothing_to_learn_from(name: str, value: float) -> None:
    with pytest.raises(ModelError, match=f"{name} has nothing to learn from: 5 users × 4 items"):
        small(name).fit(csr_matrix((np.full(20, value), np.tile(np.arange(4), 5), np.arange(0, 24, 4)), shape=(5, 4)))


@pytest.mark.parametrize("name", [name for name in ALL if name != SAMPLED])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_the_least_there_can_be_is_learned(name: str, shape: tuple[int, int]) -> None:
    seen = csr_matrix(np.ones(shape, dtype=np.float32))
    assert torch.isfinite(small(name).fit(seen).score(seen)).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ALL)
def test_state_in_a_fresh_model_gives_the_same_scores_bit_for_bit(name: str, device: str) -> None:
    seen = histories(of=name)
    model = small(name).fit(seen, FitOptions(device=device))
    state = model.state()
    assert all(tensor.device.type == device for tensor in state.values())
    fresh = small(name)
    assert fresh.restore(state) is fresh
    assert torch.equal(fresh.score(seen), model.score(seen))


@pytest.mark.parametrize("name", ALL)
def test_state_survives_a_safetensors_file(name: str, fitted: Mapping[str, Recommender]) -> None:
    model = fitted[name]
    restored = small(name).restore(load(save(model.state())))
    assert torch.equal(restored.score(histories(of=name)), model.score(histories(of=name)))
    again = restored.state()
    assert again.keys() == model.state().keys()
    assert all(torch.equal(tensor, again[key]) for key, tensor in model.state().items())


@pytest.mark.parametrize("name", EVERY)
def test_a_model_is_its_hyper_parameters(name: str) -> None:
    model = small(name)
    values = hyper_parameters_of(model)
    assert model.name == name
    assert build(name, **values) == model
    for key, value in values.items():
        assert f"{key}={value!r}" in repr(model)
    assert hyper_parameters_of(model.fit(histories(of=name))) == values
    assert build(name) == build(name, **hyper_parameters_of(build(name)))


@pytest.mark.parametrize("name", EVERY)
def test_an_unknown_hyper_parameter_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name} has no hyper-parameter 'colour'"):
        build(name, colour=1)


@pytest.mark.parametrize("name", [*FOLDING_IN, *VARIANTS])
def test_a_new_history_is_folded_in(name: str, fitted: Mapping[str, Recommender]) -> None:
    scores = fitted[name].score(histories(users=9, seed=8, of=name))
    assert scores.shape == (9, 25)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", [name for name in EVERY if name not in FOLDING_IN])
def test_a_model_that_cannot_fold_in_says_whom(name: str, fitted: Mapping[str, Recommender]) -> None:
    known = histories(of=name)
    new = known[3].tolil()
    new[0, known[3].indices[0]] = 0
    with pytest.raises(CannotFoldIn, match=r"row 2 of these 4.*als"):
        fitted[name].score(vstack([known[:2], new, known[5]], format="csr"))
    model = fitted[name]
    assert isinstance(model, Transductive)
    assert model.knows(vstack([known[:2], new, known[5]], format="csr")).tolist() == [True, True, False, True]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", EMBEDDING)
def test_embeddings_are_what_they_promise(name: str, device: str) -> None:
    seen = histories(of=name)
    model = small(name).fit(seen, FitOptions(device=device))
    assert isinstance(model, Embedder)
    latent = model.embed_users(seen)
    assert latent.shape == (40, hyper_parameters_of(model).get("latent", 8))
    assert latent.dtype == torch.float32
    if name in OF_FULL_RANK:
        with pytest.raises(CannotEmbed, match=f"{name} has no retrieval vectors.*ask for latent ones"):
            model.embed_users(seen, "retrieval")
        with pytest.raises(CannotEmbed, match=f"{name} has no vectors of items.*train rec-vae"):
            model.embed_items()
    else:
        users, items = model.embed_users(seen, "retrieval"), model.embed_items()
        torch.testing.assert_close(users @ items.T, model.score(seen), rtol=1e-4, atol=1e-5)
        assert {users.dtype, items.dtype} == {torch.float32}
        assert len(items) == 25
    assert torch.isfinite(latent).all()
    assert torch.equal(model.embed_users(seen, "latent"), latent)
    assert model.embed_users(seen[:0]).shape == (0, latent.shape[1])


@pytest.mark.parametrize("name", EMBEDDING)
def test_an_unknown_kind_of_embedding_is_refused(name: str, fitted: Mapping[str, Recommender]) -> None:
    model: Any = fitted[name]
    with pytest.raises(CannotEmbed, match=f"{name} has no 'retreival' embedding; did you mean 'retrieval'"):
        model.embed_users(histories(of=name), "retreival")


@pytest.mark.parametrize("name", EVERY)
def test_only_models_with_embeddings_pass_for_embedders(name: str, fitted: Mapping[str, Recommender]) -> None:
    assert isinstance(fitted[name], Embedder) == (name in EMBEDDING)


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_printed(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = small(name).fit(histories(of=name))
    model.score(histories(of=name))
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


@pytest.mark.parametrize("name", EMBEDDING)
def test_an_iterative_model_tells_of_each_iteration_and_sums_up(name: str) -> None:
    steps = []
    model: Any = small(name).fit(histories(of=name), FitOptions(listener=steps.append))
    summary = model.training_
    rounds = hyper_parameters_of(model).get("iterations") or hyper_parameters_of(model)["epochs"]
    assert [(step.task, step.done, step.total) for step in steps] == [(name, n + 1, rounds) for n in range(rounds)]
    assert [dict(step.figures) for step in steps] == summary.curve
    assert all(np.isfinite(value) for figures in summary.curve for value in figures.values())
    assert (summary.epochs, summary.best_epoch) == (rounds, rounds)
    assert summary.updates >= rounds
    assert summary.seconds > 0


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("likelihood", ["multinomial", "bernoulli", "gaussian", "poisson"])
def test_every_network_learns_by_every_likelihood(name: str, likelihood: str) -> None:
    board = checkerboard()
    model: Any = small(name, **enough(name) | {"likelihood": likelihood}).fit(board.history)
    assert model.training_.curve[-1]["loss"] < model.training_.curve[0]["loss"]
    assert recall_at_1(model, board.history, board.held_out) == 1
    if likelihood == "multinomial":
        with pytest.raises(CannotPredict):
            model.predict(board.history)
    else:
        predicted = model.predict(board.history)
        assert predicted[board.held_out.nonzero()].mean() > predicted.mean()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("corruption", [{"salt": 0.2}, {"noise": 0.3}, {"half_split": True}], ids=str)
def test_every_network_learns_from_every_corruption(
    name: str, corruption: dict[str, Any], fitted: Mapping[str, Recommender]
) -> None:
    board = checkerboard()
    model = small(name, **enough(name) | corruption).fit(board.history)
    assert recall_at_1(model, board.history, board.held_out) == 1
    seen = histories(of=name)
    assert not torch.equal(small(name, **corruption).fit(seen).score(seen), fitted[name].score(seen))


def test_build_names_the_nearest_model() -> None:
    with pytest.raises(ModelError, match="unknown model 'rdale'; did you mean 'rdlae'"):
        build("rdale")
