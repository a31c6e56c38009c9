"""EASE next to the formula of its paper, and to figures that an independent implementation measured."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checkerboard import checkerboard
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

import recae.models.linear
from recae.artifact import load_model
from recae.errors import ModelError
from recae.experiment import fit_into
from recae.interactions import IdMap, Interactions, Preparation
from recae.kernels import gram, inverse
from recae.models.base import FitOptions
from recae.models.ease import EASE
from recae.models.linear import TOLERANCE
from recae.validation import Validation


@given(seed=st.integers(0, 2**32 - 1), l2=st.floats(0.1, 1000))
def test_weights_are_those_of_the_paper(seed: int, l2: float) -> None:
    seen = csr_matrix(random_array((30, 12), density=0.4, rng=np.random.default_rng(seed)) > 0)
    dense = seen.toarray().astype(np.float64)
    inverse = np.linalg.inv(dense.T @ dense + l2 * np.eye(12))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)

    model = EASE(l2=l2).fit(seen)

    np.testing.assert_allclose(model.state()["weights"].numpy(), weights, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.score(seen).numpy(), dense @ weights, rtol=1e-4, atol=1e-6)


def test_weights_are_whole_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = csr_matrix(random_array((20, 11), density=0.4, rng=np.random.default_rng(1)) > 0, dtype=np.float32)
    whole = EASE(l2=2).fit(seen).state()["weights"]
    monkeypatch.setattr(gram, "BLOCK", 4)
    monkeypatch.setattr(inverse, "BLOCK", 4)
    torch.testing.assert_close(EASE(l2=2).fit(seen).state()["weights"], whole)


def test_what_float32_cannot_invert_is_done_again_in_float64() -> None:
    # Items that always come together, and hardly any penalty: float32 cannot tell this matrix from a singular one.
    seen = csr_matrix(
        np.repeat(random_array((40, 6), density=0.5, rng=np.random.default_rng(2)).toarray() > 0, 2, axis=1)
    )
    dense = seen.toarray().astype(np.float64)
    known = np.linalg.inv(dense.T @ dense + 1e-6 * np.eye(12))
    known = -known / np.diag(known)
    np.fill_diagonal(known, 0)

    for l2, precision in ((100.0, "float32"), (1e-6, "float64")):
        model = EASE(l2=l2).fit(seen)
        assert (model.training_.precision, model.training_.error < TOLERANCE) == (precision, True)
    np.testing.assert_allclose(model.state()["weights"].numpy(), known, atol=1e-5)
    assert model.state()["weights"].dtype == torch.float32


def test_the_model_directory_says_how_it_was_solved(tmp_path: Path) -> None:
    seen = checkerboard().history
    users, items = seen.shape
    interactions = Interactions(seen, IdMap.of(range(users)), IdMap.of(range(items)), pd.DataFrame(index=range(items)))
    fit_into(tmp_path / "model", EASE(), interactions, Preparation(), FitOptions())
    training = load_model(tmp_path / "model").card.training
    assert training["precision"] == "float32"
    assert 0 <= training["error"] < TOLERANCE


def test_too_many_items_are_refused_before_any_work() -> None:
    wide = csr_matrix((np.ones(1, dtype=np.float32), [0], [0, 1]), shape=(1, 10_000_000))
    with pytest.raises(ModelError, match=r"ease, .* 10,000,000 items, needs 400,\d\d\d\.\d GB on cpu.*use als"):
        EASE().fit(wide)


def test_float64_is_refused_where_float32_just_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    needed: list[int] = []

    def require(device: str, size: int, what: str, instead: str) -> None:
        needed.append(size)
        if len(needed) == 2:
            raise ModelError(f"{what} needs too much; {instead}")

    monkeypatch.setattr(recae.models.linear, "require_memory", require)
    with pytest.raises(ModelError, match=r"ease, .* items, in float64 needs too much; raise l2"):
        EASE(l2=1e-12).fit(csr_matrix(np.ones((30, 500))))
    assert needed[1] > needed[0]


def test_items_too_much_alike_are_one_clear_line() -> None:
    with pytest.raises(ModelError, match="ease: l2 = 1e-300 is too small"):
        EASE(l2=1e-300).fit(csr_matrix(np.ones((3, 5))))


@pytest.mark.real_data
def test_figures_on_movielens_equal_those_of_an_independent_implementation(real_data: Callable[[str], Path]) -> None:
    train, fold = read_strong_split(real_data("ml-1m-strong.zip"))
    scores = EASE(l2=400).fit(train).score(fold.history).numpy()
    assert [round(figure, 5) for figure in figures(scores, fold)] == [0.35857, 0.47296, 0.42178]


def read_strong_split(path: Path) -> tuple[csr_matrix, Validation]:
    with zipfile.ZipFile(path) as archive:
        parts = {}
        for name in ("items", "train", "test_tr", "test_te"):
            with archive.open(f"ml-1m-strong/{name}.csv") as file:
                parts[name] = pd.read_csv(file)
    items = pd.Index(parts["items"]["item"])
    test_users = pd.Index(parts["test_tr"]["user"].unique())

    def matrix(part: pd.DataFrame, users: pd.Index) -> csr_matrix:
        place = (users.get_indexer(part["user"]), items.get_indexer(part["item"]))
        return csr_matrix((np.ones(len(part), dtype=np.float32), place), shape=(len(users), len(items)))

    train = matrix(parts["train"], pd.Index(parts["train"]["user"].unique()))
    return train, Validation(matrix(parts["test_tr"], test_users), matrix(parts["test_te"], test_users))


def figures(scores: np.ndarray, fold: Validation) -> list[float]:
    """Return truncated recall@20, truncated recall@50 and NDCG@100: the plain twin of recae.metrics."""
    masked = np.where(fold.history.toarray() > 0, -np.inf, scores)
    best = np.argsort(-masked, axis=1, kind="stable")[:, :100]
    hits = np.take_along_axis(fold.held_out.toarray(), best, axis=1)
    targets = np.diff(fold.held_out.indptr)
    hits, targets = hits[targets > 0], targets[targets > 0]
    recalls = [float(np.mean(hits[:, :k].sum(axis=1) / np.minimum(k, targets))) for k in (20, 50)]
    discounts = 1 / np.log2(np.arange(2, 102))
    ideal = np.cumsum(discounts)[np.minimum(100, targets) - 1]
    return [*recalls, float(np.mean(hits @ discounts / ideal))]
