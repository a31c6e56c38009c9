"""The models that remember users: each against its formula written out, with and without landmarks."""

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
from recae.models.base import FitOptions
from recae.models.hybrid import USUAL, WEIGHTS, Hybrid
from recae.models.infinite_ae import InfiniteAE
from recae.models.kernel_ae import KernelAE
from recae.models.rdlae import RDLAE


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
    seen, asked = histories(seed), histories(seed + 1, users=5)
    for model in (InfiniteAE(sharpness=sharpness, l2=l2), KernelAE(sharpness=sharpness, kernel_l2=l2, l2=3.0)):
        found = model.fit(seen).score(asked)
        np.testing.assert_allclose(found.numpy(), by_hand(model, seen, asked), rtol=2e-3, atol=2e-4)


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


def test_a_hybrid_s_score_is_the_sum_of_its_parts() -> None:
    board = checkerboard()
    model = Hybrid(**SMALL, l2=1.0).fit(board.history, FitOptions(validation=board))
    deep, memory = model.deep_.score(board.history), model.memory_.score(board.history)
    torch.testing.assert_close(model.score(board.history), deep + model.weight_ * memory)
    ratio = float(model.weight_) * float(memory.std(correction=0)) / float(deep.std(correction=0))
    assert min(abs(ratio - weight) for weight in WEIGHTS) < 1e-4


def test_without_validation_the_weight_is_the_usual_one() -> None:
    board = checkerboard()
    model = Hybrid(**SMALL, l2=1.0).fit(board.history)
    deep, memory = (float(part.score(board.history).std(correction=0)) for part in (model.deep_, model.memory_))
    assert float(model.weight_) * memory / deep == pytest.approx(USUAL, rel=1e-4)


def test_the_weight_is_what_validation_users_like_best() -> None:
    board = checkerboard()
    model = Hybrid(**SMALL, l2=1.0).fit(board.history)

    class Backwards:
        """A part that ranks everything the wrong way round."""

        def score(self, histories: csr_matrix) -> Tensor:
            return -KernelAE(l2=1.0, kernel_l2=0.1).fit(board.history).score(histories)

    model.memory_ = Backwards()  # type: ignore[assignment]
    assert model._best_weight(board, 1.0) == 0.0


def test_default_is_the_hybrid() -> None:
    assert build("default") == build("hybrid")
    assert build("default", l2=7.0) == Hybrid(l2=7.0)
    with pytest.raises(ModelError, match="unknown model 'defualt'; did you mean 'default'"):
        build("defualt")


def test_memory_that_will_not_do_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recae.device.available_memory", lambda device: 1000)
    for name in ("infinite-ae", "kernel-ae", "hybrid"):
        with pytest.raises(ModelError, match=f"^{name}.* needs .* use "):
            build(name).fit(histories())
