"""The spectral filters next to their definition in dense matrices, and to steps of the integration they stand for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, random_array

from recae import device
from recae.errors import ModelError
from recae.kernels import spectrum
from recae.models.base import FitOptions
from recae.models.spectral import Spectral

seeds = st.integers(0, 2**32 - 1)
exponents = st.floats(0, 1)

Dense = NDArray[np.float64]


def histories(seed: int, users: int = 30, items: int = 12) -> csr_matrix:
    return csr_matrix(random_array((users, items), density=0.4, rng=np.random.default_rng(seed)) > 0)


def normalised(seen: csr_matrix, user_exponent: float, item_exponent: float) -> tuple[Dense, Dense]:
    """Return R and the number of users of each item."""
    dense = seen.toarray().astype(np.float64)
    lengths, users = (np.maximum(dense.sum(axis=axis), 1) for axis in (1, 0))
    return lengths[:, None] ** -user_exponent * dense * users**-item_exponent, users


def plain(model: Spectral, trained: csr_matrix, asked: csr_matrix) -> tuple[Dense, Dense]:
    """Return what a blurred history is before it is sharpened, and P; all singular vectors are taken."""
    r, users = normalised(trained, model.user_exponent, model.item_exponent)
    p, x = r.T @ r, asked.toarray().astype(np.float64)
    values, vectors = np.linalg.eigh(p)
    vectors = vectors[:, values > 1e-6 * values[-1]][:, -model.factors :]
    smooth = (x / users**model.item_exponent) @ vectors @ vectors.T * users**model.item_exponent
    return x @ p + model.alpha * smooth, p


@given(seed=seeds, user_exponent=exponents, item_exponent=exponents, alpha=st.sampled_from([0.0, 0.3]))
def test_without_sharpening_it_is_the_two_filters_of_gf_cf(
    seed: int, user_exponent: float, item_exponent: float, alpha: float
) -> None:
    seen, new = histories(seed), histories(seed + 1, users=5)
    model = Spectral(factors=12, alpha=alpha, user_exponent=user_exponent, item_exponent=item_exponent).fit(seen)
    np.testing.assert_allclose(model.score(new).numpy(), plain(model, seen, new)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("order", "stages"), [(1, [0.0]), (2, [0.0, 0.5]), (4, [0.0, 0.5, 0.5, 1.0])])
@given(seed=seeds, time=st.floats(0.1, 2.5))
def test_sharpening_is_one_step_of_an_integration_backwards(
    order: int, stages: list[float], seed: int, time: float
) -> None:
    # Of dy/dt = -yP, by Euler, by the midpoint and by Runge and Kutta: each stage is a slope some way along the last.
    seen = histories(seed)
    model = Spectral(factors=3, sharpening=time, sharpening_order=order).fit(seen)
    y, p = plain(model, seen, seen)
    slopes: list[Dense] = []
    for share in stages:
        slopes.append(-(y + share * time * slopes[-1] if slopes else y) @ p)
    weights = {1: [1.0], 2: [0.0, 1.0], 4: [1 / 6, 1 / 3, 1 / 3, 1 / 6]}[order]
    after = y + time * sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
    np.testing.assert_allclose(model.score(seen).numpy(), after, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sharpening", [0.0, 1.2])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_tiles_are_the_scores(sharpening: float, alpha: float) -> None:
    seen = histories(5)
    model = Spectral(factors=4, alpha=alpha, sharpening=sharpening).fit(seen)
    tiles, tile = model.score_by_tile(seen), torch.empty(30, 5)
    tiles.write(4, tile)
    torch.testing.assert_close(tile, model.score(seen)[:, 4:9])


def test_a_history_scores_alike_whoever_it_belongs_to() -> None:
    seen = histories(6)
    rest = seen[1:]
    model = Spectral(factors=4).fit(rest)
    known, new = model.score(rest[3]), model.score(seen[0])
    torch.testing.assert_close(known, model.score(rest)[3:4])
    assert new.shape == (1, 12)
    assert new.max() > 0


def test_without_the_ideal_filter_no_singular_vector_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "leading", None)
    assert Spectral(alpha=0.0).fit(histories(7)).state()["vectors"].shape == (12, 0)


def test_an_item_that_nobody_has_gets_nothing() -> None:
    seen = histories(8).tolil()
    seen[:, 5] = 0
    scores = Spectral(sharpening=1.0).fit(csr_matrix(seen)).score(histories(8))
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores[:, 5], torch.zeros(30))


def test_memory_is_asked_for_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available_memory", lambda name: 10**3)
    monkeypatch.setattr(spectrum, "leading", None)
    with pytest.raises(ModelError, match=r"spectral, for 256 singular vectors of 12 items, needs .*lower factors"):
        Spectral().fit(histories(9))


def test_a_state_that_points_outside_of_the_catalogue_is_refused() -> None:
    state = Spectral().fit(histories(10)).state()
    state["indices"] = state["indices"].clone()
    state["indices"][0] = 12
    with pytest.raises(ValueError, match="indices"):
        Spectral().restore(state)


def test_a_seed_gives_the_same_bits_and_another_the_same_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "DENSE", 0)
    seen = histories(11, users=80, items=60)
    one, same, other = (Spectral(factors=9).fit(seen, FitOptions(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one.state()["vectors"], same.state()["vectors"])
    assert not torch.equal(one.state()["vectors"], other.state()["vectors"])
    torch.testing.assert_close(one.score(seen), other.score(seen), rtol=1e-4, atol=1e-5)


@given(seed=seeds, count=st.integers(1, 9))
def test_lanczos_finds_the_vectors_of_the_dense_way(seed: int, count: int) -> None:
    seen = histories(seed, users=50, items=40).astype(np.float32)
    dense = spectrum.leading(seen, count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectrum, "DENSE", 0)
        lanczos = spectrum.leading(seen, count, seed)
    assert lanczos.shape == dense.shape == (40, count)
    # Each alone, but for its sign: so the order is that of the singular values, too.
    np.testing.assert_allclose(np.abs((lanczos * dense).sum(axis=0)), 1, atol=1e-3)


def test_no_more_vectors_are_kept_than_there_are_directions() -> None:
    left, right = (np.random.default_rng(seed).random(shape) for seed, shape in ((0, (50, 3)), (1, (3, 30))))
    vectors = spectrum.leading(csr_matrix((left @ right).astype(np.float32)), 10, 0)
    assert vectors.shape == (30, 3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-5)


@pytest.mark.parametrize("setting", ["alpha", "sharpening", "user_exponent", "item_exponent"])
def test_a_negative_setting_is_refused(setting: str) -> None:
    with pytest.raises(ModelError, match=f"spectral: {setting} = -0.5: input should be greater than or equal to 0"):
        Spectral(**{setting: -0.5})
