"""The models that remember users: each against its formula written out, with and without landmarks."""

from typing import Any

import numpy as np
import pytest
import torch
from checkerboard import checkerboard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, random_array, vstack
from torch import Tensor

from recae.errors import ModelError
from recae.models import build
from recae.models.base import FitOptions, Recommender, hyper_parameters_of, settings_for
from recae.models.hybrid import USUAL, WEIGHTS, Hybrid, Weighed, _alike
from recae.models.infinite_ae import InfiniteAE
from recae.models.kernel_ae import KernelAE
from recae.models.memory import Inverse, Weights, landmarks_of
from recae.models.mult_vae import MultVAE
from recae.models.rdlae import RDLAE
from recae.models.spectral import Spectral
from recae.validation import Validation


def histories(seed: int = 0, users: int = 30, items: int = 12, density: float = 0.3) -> csr_matrix:
    drawn = csr_matrix(random_array((users, items), density=density, rng=np.random.default_rng(seed), dtype=np.float32))
    drawn.data[:] = 1
    return drawn


def unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)


def looks_of(model: InfiniteAE | KernelAE, rows: NDArray[np.floating], seen: csr_matrix) -> NDArray[np.float64]:
    """Return all that histories are compared by, side by side, so that the cosine is an inner product."""
    if isinstance(model, InfiniteAE):
        return unit(rows)
    rarity = 1 / (model.l2 + np.asarray(seen.sum(axis=0), np.float64).ravel())
    if seen.shape[1] > model.linear_items:
        return unit(rows * rarity**model.history_exponent)
    linear = RDLAE(l2=model.l2, dropout=model.dropout, relaxation=model.relaxation, user_exponent=model.user_exponent)
    scores = rows @ linear.fit(seen).weights_.double().numpy()
    looks = [
        rows * rarity**model.history_exponent,
        scores * rarity**model.score_exponent,
        np.sqrt(np.maximum(scores, 0)) * rarity**model.score_exponent,
    ]
    return np.hstack([unit(look) for look in looks]) / np.sqrt(3)


def by_hand(model: InfiniteAE | KernelAE, seen: csr_matrix, asked: csr_matrix) -> NDArray[np.float64]:
    """Return the scores as the docstrings say, with dense matrices in float64."""
    known = seen[np.diff(seen.indptr) > 0].toarray().astype(np.float64)
    of_known, of_asked = (looks_of(model, rows, seen) for rows in (known, asked.toarray().astype(np.float64)))
    kernel = np.exp(model.sharpness * of_known @ of_known.T)
    l2 = model.l2 if isinstance(model, InfiniteAE) else model.kernel_l2
    lengths = known.sum(axis=1)
    wanted = known * ((lengths.mean() / lengths) ** model.target_exponent)[:, None]
    return np.exp(model.sharpness * of_asked @ of_known.T) @ np.linalg.solve(kernel + l2 * np.eye(len(kernel)), wanted)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), sharpness=st.sampled_from([0.5, 2.0, 5.0]), l2=st.sampled_from([0.1, 20.0]))
def test_scores_are_the_formula_s(seed: int, sharpness: float, l2: float) -> None:
    for users in (30, 8):  # more than items, and fewer, where the output layer is another
        seen, asked = histories(seed, users), histories(seed + 1, users=5)
        models: list[InfiniteAE | KernelAE] = [InfiniteAE(sharpness=sharpness, l2=l2)]
        models += [KernelAE(sharpness=sharpness, kernel_l2=l2, l2=3.0, linear_items=most) for most in (12, 11)]
        for model in models:
            found = model.fit(seen).score(asked)
            assert isinstance(model.memory_.output, Weights if users == 30 else Inverse)
            np.testing.assert_allclose(found.numpy(), by_hand(model, seen, asked), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("linear_items", [0, 100])
def test_where_items_are_more_than_users_a_state_and_tiles_are_the_same_scores(linear_items: int) -> None:
    seen, asked = histories(users=8), histories(1, users=5)
    for model in (InfiniteAE(), KernelAE(linear_items=linear_items)):
        scores, state = model.fit(seen).score(asked), model.state()
        assert "weights" not in state
        assert ("linear" in state) == (isinstance(model, KernelAE) and linear_items > 0)
        restored = build(model.name, **hyper_parameters_of(model)).restore(state)
        assert torch.equal(restored.score(asked), scores)
        tile = torch.empty((5, 3))
        model.score_by_tile(asked).write(9, tile)
        torch.testing.assert_close(tile, scores[:, 9:])
        for name, wrong in {"items": torch.tensor(11), "indptr": state["indptr"][1:]}.items():
            with pytest.raises((ValueError, LookupError)):
                build(model.name, **hyper_parameters_of(model)).restore({**state, name: wrong})


def test_users_are_all_landmarks_where_items_are_more_unless_told_or_too_many() -> None:
    assert landmarks_of(8, 12, None) == 8
    assert landmarks_of(8, 12, 5) == 5
    assert landmarks_of(30_000, 40_000, None) == 30_000
    assert landmarks_of(40_000, 80_000, None) == landmarks_of(40_000, 9_000, None) == 5000
    assert landmarks_of(4000, 300, None) == 4000


def test_the_penalty_is_how_many_users_an_item_has_unless_told_or_more_than_twenty() -> None:
    for users, l2 in ((6, None), (400, 20.0)):
        seen, asked = histories(users=users), histories(1, users=5)
        mean = seen.nnz / np.unique(seen.indices).size
        assert (mean > 20) == (l2 is not None)
        assert torch.equal(InfiniteAE().fit(seen).score(asked), InfiniteAE(l2=l2 or mean).fit(seen).score(asked))


def test_the_hybrid_explains_and_makes_up_users_by_its_deep_part() -> None:
    board = checkerboard()
    model = Hybrid(hidden=16, layers=1, latent=4, epochs=2, l2=1.0, kernel_l2=0.1).fit(board.history)
    explained, of_deep = (one.log_likelihoods(board.history, board.held_out) for one in (model, model.deep_))
    assert torch.equal(explained, of_deep)
    assert (model.sample(7, 3) != model.deep_.sample(7, 3)).nnz == 0


def test_users_who_are_the_same_need_a_penalty() -> None:
    twins = vstack([histories(users=2)] * 4, format="csr")
    with pytest.raises(ModelError, match="infinite-ae: l2 = 1e-12 is too small for users this much alike; raise it"):
        InfiniteAE(l2=1e-12).fit(twins)


def test_as_many_landmarks_as_users_are_all_of_them() -> None:
    seen = histories(users=40)
    whole = InfiniteAE(landmarks=40).fit(seen)
    assert torch.equal(whole.score(seen), InfiniteAE(landmarks=10_000).fit(seen).score(seen))


def test_landmarks_are_a_regression_on_similarities_to_them() -> None:
    seen, model = histories(users=60), InfiniteAE(landmarks=15, l2=0.5)
    model.fit(seen)
    landmarks = unit(model.memory_.landmarks.toarray())
    assert len(landmarks) == 15
    known = seen[np.diff(seen.indptr) > 0].toarray()
    near = np.exp(2 * unit(known) @ landmarks.T)
    lengths = known.sum(axis=1)
    wanted = known * np.sqrt(lengths.mean() / lengths)[:, None]
    # Ridge regression, with the kernel between landmarks for its norm, as one least-squares problem.
    root = np.linalg.cholesky(np.exp(2 * landmarks @ landmarks.T)).T
    norm = np.sqrt(0.5) * root
    weights = np.linalg.lstsq(np.vstack([near, norm]), np.vstack([wanted, 0 * wanted[:15]]), rcond=None)[0]
    asked = np.exp(2 * unit(seen[:4].toarray()) @ landmarks.T)
    np.testing.assert_allclose(model.score(seen[:4]).numpy(), asked @ weights, atol=2e-3)
    again = InfiniteAE(landmarks=15, l2=0.5).fit(seen, FitOptions(seed=7))
    assert not torch.equal(again.score(seen), model.score(seen))


def test_users_without_interactions_are_no_landmarks() -> None:
    seen = histories()
    gaps = vstack([seen, csr_matrix((20, seen.shape[1]), dtype=np.float32)], format="csr")
    assert torch.equal(InfiniteAE().fit(gaps).score(seen), InfiniteAE().fit(seen).score(seen))


def test_users_with_many_items_weigh_less_as_the_exponent_says() -> None:
    seen = histories(users=50)
    lengths = np.diff(seen.indptr)
    weights = (lengths.mean() / np.maximum(lengths, 1)) ** 0.5
    dense = seen.toarray().astype(np.float64)
    gram = dense.T @ (weights[:, None] * dense)
    inverse = np.linalg.inv(gram + np.diag(5 + np.diag(gram)))
    expected = np.eye(len(gram)) - inverse / np.diag(inverse)
    model = RDLAE(l2=5.0, dropout=0.5, relaxation=0.0, user_exponent=0.5).fit(seen)
    np.testing.assert_allclose(model.weights_.numpy(), expected, atol=1e-5)


SMALL = {
    "hidden": 16,
    "layers": 2,
    "latent": 8,
    "epochs": 30,
    "learning_rate": 0.01,
    "averaging": 0.0,
    "kernel_l2": 0.1,
}


@pytest.fixture
def by_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few validation users choose a hybrid's weights."""
    monkeypatch.setattr("recae.models.hybrid.FEWEST", 1)


@pytest.mark.usefixtures("by_a_few")
def test_a_hybrid_s_score_is_the_sum_of_its_parts() -> None:
    board = checkerboard()
    model = Hybrid(**SMALL, l2=1.0).fit(board.history, FitOptions(validation=board))
    deep, memory = model.deep_.score(board.history), model.memory_.score(board.history)
    torch.testing.assert_close(model.score(board.history), deep + model.weight_ * memory)
    ratio = float(model.weight_) * float(memory.std(correction=0)) / float(deep.std(correction=0))
    assert min(abs(ratio - weight) for weight in WEIGHTS) < 1e-4


@pytest.mark.parametrize("few", [False, True])
def test_without_validation_or_with_a_few_users_the_weight_is_the_usual_one(few: bool) -> None:
    board = checkerboard()
    model = Hybrid(**SMALL, l2=1.0).fit(board.history, FitOptions(validation=board if few else None))
    deep, memory = (float(part.score(board.history).std(correction=0)) for part in (model.deep_, model.memory_))
    assert float(model.weight_) * memory / deep == pytest.approx(USUAL, rel=1e-4)
    assert model.filter_ is None


def test_what_does_not_tell_items_apart_weighs_nothing() -> None:
    """A spread that is rounding would make a weight of a million."""
    model = Hybrid(**SMALL, l2=1.0).fit(csr_matrix(np.ones((60, 40), dtype=np.float32)))
    assert float(model.weight_) < 100


def weighed(model: Hybrid, graph: Any, board: Validation) -> Weighed:
    alike = [_alike(model.deep_, part, board.history) for part in (model.memory_, graph)]
    return model._best_weights(graph, board, alike)


class Backwards:
    """A part that ranks everything the wrong way round."""

    def __init__(self, right: Recommender) -> None:
        self.right = right

    def score(self, histories: csr_matrix) -> Tensor:
        return -self.right.score(histories)


def test_the_weights_are_what_validation_users_like_best() -> None:
    board = checkerboard()
    model, graph = Hybrid(**SMALL, l2=1.0).fit(board.history), Spectral(factors=8).fit(board.history)
    wrong: Any = Backwards(graph)
    nothing = weighed(model, wrong, board)
    assert (nothing.memory_weight, nothing.filter_weight) == (0.0, 0.0)
    assert nothing.ndcg_at_100_deep == nothing.ndcg_at_100_all == 1.0
    model.deep_ = Backwards(model.deep_)  # type: ignore[assignment]
    by_memory = weighed(model, wrong, board)
    assert by_memory.memory_weight > 0 == by_memory.filter_weight
    assert by_memory.ndcg_at_100_all == 1.0 > by_memory.ndcg_at_100_deep
    model.memory_ = Backwards(model.memory_)  # type: ignore[assignment]
    by_graph = weighed(model, graph, board)
    assert by_graph.filter_weight > 0 == by_graph.memory_weight


def test_the_filter_is_kept_by_how_sure_its_gain_is(monkeypatch: pytest.MonkeyPatch) -> None:
    board = checkerboard()
    model, graph = Hybrid(**SMALL, l2=1.0).fit(board.history), Spectral(factors=8).fit(board.history)
    model.memory_ = Backwards(model.memory_)  # type: ignore[assignment]
    model.deep_ = Backwards(model.deep_)  # type: ignore[assignment]
    for sure, kept in ((-np.inf, True), (np.inf, False)):
        monkeypatch.setattr("recae.models.hybrid.SURE", sure)
        assert (weighed(model, graph, board).filter_weight > 0) == kept


def test_a_few_validation_users_from_first_to_last_are_asked_where_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = checkerboard()
    model, graph = Hybrid(**SMALL, l2=1.0).fit(board.history), Spectral(factors=8).fit(board.history)
    asked = []

    class Heard(Backwards):
        def score(self, histories: csr_matrix) -> Tensor:
            asked.append(histories)
            return self.right.score(histories)

    monkeypatch.setattr("recae.models.hybrid.JUDGES", 3)
    weighed(model, Heard(graph), board)
    users = board.history.shape[0]
    expected = board.history[[0, round((users - 1) / 2), users - 1]]
    assert (asked[-1] != expected).nnz == 0


def test_what_only_the_other_deep_part_has_is_refused() -> None:
    with pytest.raises(ModelError, match=r"hybrid: hidden, gamma: not with mult-vae for the deep part; leave them out"):
        Hybrid(deep="mult-vae", hidden=7, gamma=0.1)
    board = checkerboard()
    wide = Hybrid(hidden=7, linear_items=board.history.shape[1] - 1)
    with pytest.raises(ModelError, match=r"hidden: not with .*, which it is for .* items, more than linear_items"):
        wide.fit(board.history)


@pytest.mark.usefixtures("by_a_few")
def test_a_filter_that_validation_users_gain_by_is_a_part_of_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    board = checkerboard()
    monkeypatch.setattr(Hybrid, "_best_weights", lambda *_: Weighed(0.5, 2.0))
    monkeypatch.setattr("recae.models.hybrid._alike", lambda *_: 1.0)
    model = Hybrid(**SMALL, l2=1.0, factors=8).fit(board.history, FitOptions(validation=board))
    assert model.filter_ is not None
    expected = model.deep_.score(board.history)
    expected += 0.5 * model.memory_.score(board.history) + 2.0 * model.filter_.score(board.history)
    torch.testing.assert_close(model.score(board.history), expected)
    tile = torch.empty((board.history.shape[0], 3))
    model.score_by_tile(board.history).write(4, tile)
    torch.testing.assert_close(tile, expected[:, 4:7])
    restored = Hybrid(**SMALL, l2=1.0, factors=8).restore(model.state())
    assert torch.equal(restored.score(board.history), model.score(board.history))
    narrow = {name: tensor[1:] if name == "filter.vectors" else tensor for name, tensor in model.state().items()}
    with pytest.raises((ValueError, IndexError)):
        Hybrid(**SMALL, l2=1.0, factors=8).restore(narrow)
    unweighed = {name: tensor for name, tensor in model.state().items() if name != "filter_weight"}
    with pytest.raises(ValueError, match="filter_weight"):
        Hybrid(**SMALL, l2=1.0, factors=8).restore(unweighed)


def test_the_deep_part_may_begin_at_a_filter() -> None:
    board = checkerboard()
    model = Hybrid(latent=8, deep="mult-vae", epochs=2, l2=1.0, kernel_l2=0.1).fit(board.history)
    assert isinstance(model.deep_, MultVAE)
    assert (model.deep_.latent, model.deep_.epochs, model.deep_.negatives) == (8, 2, 0)
    restored = Hybrid(latent=8, deep="mult-vae", epochs=2, l2=1.0, kernel_l2=0.1).restore(model.state())
    assert torch.equal(restored.score(board.history), model.score(board.history))
    assert model.embed_users(board.history).shape == (board.history.shape[0], 8)


def test_how_wide_the_catalogue_is_says_what_is_usual() -> None:
    wide, narrow = (settings_for(Hybrid(linear_items=most), 12) for most in (11, 12))
    assert (wide["deep"], wide["latent"], wide["epochs"]) == ("mult-vae", 1024, 6)
    assert (narrow["deep"], narrow["latent"], narrow["epochs"]) == ("rec-vae", 200, 100)
    told = Hybrid(deep="rec-vae", latent=7, linear_items=11)
    assert {**narrow, "latent": 7, "linear_items": 11} == settings_for(told, 12)
    assert settings_for(Spectral(factors=9), 12) == {**hyper_parameters_of(Spectral()), "factors": 9}


def test_the_hybrid_of_a_wide_catalogue_fits_and_is_restored_without_being_told_its_parts() -> None:
    board = checkerboard()
    small = {"latent": 8, "epochs": 2, "kernel_l2": 0.1, "linear_items": board.history.shape[1] - 1}
    model = Hybrid(**small).fit(board.history)
    assert isinstance(model.deep_, MultVAE)
    assert (model.memory_.history_exponent, model.memory_.target_exponent, model.memory_.linear_) == (0.25, 0, None)
    restored = Hybrid(**small).restore(model.state())
    assert torch.equal(restored.score(board.history), model.score(board.history))


@pytest.mark.usefixtures("by_a_few")
def test_a_hybrid_tells_what_it_chose() -> None:
    board = checkerboard()
    chosen = Hybrid(**SMALL, l2=1.0).fit(board.history, FitOptions(validation=board)).training_.chosen
    assert chosen.items() >= {"deep": "rec-vae", "gamma": 0.005, "batch_size": 250, "history_exponent": 0.4}.items()
    assert not chosen.keys() & SMALL.keys()
    assert chosen["memory_weight"] in WEIGHTS
    assert chosen["ndcg_at_100_all"] == 1.0
    without = Hybrid(**SMALL, l2=1.0).fit(board.history).training_.chosen
    assert [without[name] for name in ("memory_weight", "filter_weight", "ndcg_at_100_deep", "ndcg_at_100_all")] == [
        USUAL,
        0.0,
        None,
        None,
    ]


def test_default_is_the_hybrid() -> None:
    assert build("default") == build("hybrid")
    assert build("default", l2=7.0) == Hybrid(l2=7.0)
    with pytest.raises(ModelError, match="unknown model 'defualt'; did you mean 'default'"):
        build("defualt")


def test_the_memory_of_the_deep_part_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = histories(items=50)
    monkeypatch.setattr("recae.device.available_memory", lambda device: 10**9)
    Hybrid(latent=9).require_memory(seen, "cpu")
    with pytest.raises(ModelError, match=r"^hybrid: rec-vae for its weights .* GB are available; use narrower layers"):
        Hybrid(latent=1_000_000).require_memory(seen, "cpu")


def test_memory_that_will_not_do_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recae.device.available_memory", lambda device: 1000)
    for name in ("infinite-ae", "kernel-ae", "hybrid"):
        with pytest.raises(ModelError, match=f"^{name}.* needs .* use "):
            build(name).fit(histories())
