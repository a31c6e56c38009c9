"""What each model computes, next to its formula written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix, random_array, vstack
from threadpoolctl import threadpool_limits

from recae import histories as reading
from recae.errors import Diverged, ModelError
from recae.histories import digests, multiply, presence, valued
from recae.models.als import ALS
from recae.models.base import FitOptions
from recae.models.bpr import BPR
from recae.models.item_knn import ItemKNN
from recae.models.popularity import Popularity
from recae.models.random import Random

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, users: int = 30, items: int = 17, density: float = 0.3) -> csr_matrix:
    return csr_matrix(random_array((users, items), density=density, rng=np.random.default_rng(seed)), dtype=np.float32)


class TestReading:
    def test_presence_is_any_value_but_zero(self) -> None:
        given = csr_matrix((np.array([5.0, -1.0, 0.0, 0.25]), [3, 0, 1, 2], [0, 3, 4]), shape=(2, 4))
        np.testing.assert_array_equal(presence(given).toarray(), [[1, 0, 0, 1], [0, 0, 1, 0]])
        np.testing.assert_array_equal(valued(given).toarray(), given.toarray())
        assert valued(given).nnz == 3
        assert given.nnz == 4

    def test_duplicates_are_summed(self) -> None:
        given = csr_matrix((np.array([1.0, 2.0]), [1, 1], [0, 2]), shape=(1, 3))
        np.testing.assert_array_equal(valued(given).toarray(), [[0, 3, 0]])

    def test_a_digest_knows_items_and_nothing_else(self) -> None:
        seen = drawn(0)
        assert digests(seen) == digests(seen * 3) == digests(seen[::-1])[::-1]
        assert len(set(digests(seen))) == len({tuple(row.indices) for row in seen})
        assert not set(digests(seen)) & set(digests(seen, salt=b"1"))

    @given(seed=seeds, users=st.integers(0, 20))
    @pytest.mark.parametrize("mkl", [True, False])
    def test_products_are_those_of_scipy(self, mkl: bool, seed: int, users: int) -> None:
        seen = drawn(seed, users=users, density=0.2)
        vectors = np.random.default_rng(seed).normal(size=(17, 5)).astype(np.float32)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reading, "HAS_MKL", mkl and reading.HAS_MKL)
            product = multiply(seen, torch.from_numpy(vectors))
        np.testing.assert_allclose(product.numpy(), seen @ vectors, rtol=1e-5, atol=1e-6)


class TestRandom:
    def test_equal_histories_have_equal_scores_and_others_do_not(self) -> None:
        model = Random().fit(drawn(0))
        scores = model.score(vstack([drawn(0)[:2], drawn(0)[:2], drawn(3)[:1]], format="csr"))
        assert torch.equal(scores[:2], scores[2:4])
        assert len(torch.unique(scores[[0, 1, 4]])) == 3 * 17

    def test_scores_are_uniform(self) -> None:
        scores = Random().fit(drawn(0)).score(drawn(1, users=2000))
        shares = torch.histc(scores, bins=10, min=0, max=1) / scores.numel()
        torch.testing.assert_close(shares, torch.full((10,), 0.1), rtol=0, atol=0.01)


def test_popularity_counts_users() -> None:
    seen = drawn(4)
    counts = (seen.toarray() != 0).sum(axis=0)
    scores = Popularity().fit(seen).score(drawn(5, users=2))
    np.testing.assert_array_equal(scores.numpy(), [counts, counts])


class TestItemKNN:
    @given(seed=seeds, neighbours=st.integers(1, 20), shrinkage=st.sampled_from([0.0, 3.5]))
    def test_scores_are_those_written_out(self, seed: int, neighbours: int, shrinkage: float) -> None:
        seen = drawn(seed)
        dense = (seen.toarray() != 0).astype(np.float64)
        users = np.sqrt(dense.sum(axis=0))
        cosines = np.zeros((17, 17))
        for one in range(17):
            for other in range(17):
                shared = dense[:, one] @ dense[:, other]
                if one != other and shared:
                    cosines[one, other] = shared / (users[one] * users[other] + shrinkage)
        for row in cosines:
            row[np.argsort(-row, kind="stable")[neighbours:]] = 0

        scores = ItemKNN(neighbours=neighbours, shrinkage=shrinkage).fit(seen).score(seen)

        np.testing.assert_allclose(scores.numpy(), dense @ cosines.T, rtol=1e-5, atol=1e-6)

    def test_too_many_neighbours_are_refused_before_any_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("recae.device.available_memory", lambda device: 10_000_000)
        monkeypatch.setattr("recae.kernels.neighbours.nearest", lambda *_: pytest.fail("work was begun"))
        seen = csr_matrix(np.ones((2, 1000), dtype=np.float32))
        said = r"item-knn, for the 800 neighbours of each of 1,000 items, needs \d.* GB on cpu.*; lower neighbours"
        with pytest.raises(ModelError, match=said):
            ItemKNN(neighbours=800).fit(seen)


class TestALS:
    @given(seed=seeds, alpha=st.sampled_from([0.5, 1.0, 10.0]), factors=st.integers(1, 12))
    def test_folding_in_solves_the_normal_equations(self, seed: int, alpha: float, factors: int) -> None:
        rng = np.random.default_rng(seed)
        items = rng.normal(size=(17, factors)).astype(np.float32)
        seen = drawn(seed)
        seen.data = rng.choice([-2.0, 0.5, 1.0, 4.0], seen.nnz).astype(np.float32)
        model = ALS(factors=factors, regularization=0.7, alpha=alpha)
        vectors = model.restore({"item_factors": torch.from_numpy(items)}).embed_users(seen)
        own = items.astype(np.float64)
        for row, vector in zip(seen.toarray().astype(np.float64), vectors.numpy(), strict=True):
            weights = np.where(row == 0, 1, alpha * np.abs(row))
            left = own.T @ (weights[:, None] * own) + 0.7 * np.eye(factors)
            right = own.T @ np.where(row > 0, alpha * row, 0)
            np.testing.assert_allclose(vector, np.linalg.solve(left, right), rtol=1e-4, atol=1e-5)

    def test_folding_in_is_what_implicit_does_with_the_same_item_factors(self) -> None:
        seen = drawn(1)
        model = ALS(factors=6, regularization=2, alpha=3).fit(seen)
        with threadpool_limits(limits=1, user_api="blas"):
            other = AlternatingLeastSquares(factors=6, regularization=2, alpha=3)
            other.item_factors = model.embed_items().numpy()
            vectors = other.recalculate_user(np.arange(30), seen)
        np.testing.assert_allclose(model.embed_users(seen).numpy(), vectors, rtol=1e-3, atol=1e-5)

    def test_each_iteration_lowers_the_loss(self) -> None:
        model = ALS(factors=6, regularization=1, alpha=3, iterations=8).fit(drawn(1))
        losses = [figures["loss"] for figures in model.training_.curve]
        assert losses == sorted(losses, reverse=True)
        assert len(set(losses)) == 8

    def test_a_disliked_item_is_not_wanted(self) -> None:
        liked = np.kron(np.eye(2), np.ones((6, 6))).astype(np.float32)
        model = ALS(factors=4, regularization=0.1, alpha=5).fit(csr_matrix(liked))
        history = np.zeros((2, 12), dtype=np.float32)
        history[:, :3] = 1
        history[1, 3] = -1
        wanted, spoiled = model.score(csr_matrix(history)).numpy()
        assert wanted[3] > 0.5
        assert spoiled[3] < wanted[3]

    def test_settings_that_cannot_be_solved_are_one_clear_line(self) -> None:
        alike = csr_matrix(np.hstack([drawn(0).toarray()] * 2))
        with pytest.raises(ModelError, match="als: regularization = 1e-300 is too small"):
            ALS(regularization=1e-300).fit(alike)
        with pytest.raises(Diverged, match=r"^als: the factors are not finite; lower alpha \(it is 1e\+38\)$"):
            ALS(alpha=1e38).fit(alike)
        with pytest.raises(Diverged, match=r"^als: .* not finite; scale the values down \(they reach 1e\+30\)$"):
            ALS().fit(alike.sign() * 1e30)


class TestBPR:
    def test_an_empty_history_is_ranked_by_the_biases(self) -> None:
        model = BPR(factors=4, iterations=5).fit(drawn(0))
        scores = model.score(csr_matrix((2, 17), dtype=np.float32))
        assert torch.equal(scores, model.embed_items()[:, -1].repeat(2, 1))
        assert torch.equal(model.embed_users(csr_matrix((1, 17))), torch.zeros(1, 4))

    def test_a_history_is_known_by_its_items_wherever_it_stands(self) -> None:
        seen = drawn(0)
        model = BPR(factors=4, iterations=5).fit(seen)
        chosen = [7, 7, 0, 29]
        torch.testing.assert_close(model.score(seen[chosen] * 2), model.score(seen)[chosen])

    def test_of_two_users_with_one_history_the_first_answers(self) -> None:
        seen = drawn(0)
        twice = vstack([seen, seen[:1]], format="csr")
        model = BPR(factors=4, iterations=5).fit(twice)
        vectors = model.state()["user_factors"]
        assert not torch.equal(vectors[0], vectors[30])
        assert torch.equal(model.embed_users(twice[30], "retrieval")[0], vectors[0])

    def test_the_seed_decides_and_nothing_else(self) -> None:
        seen = drawn(0, users=200)
        first, second = (BPR(factors=4, iterations=20).fit(seen, FitOptions(seed=3)) for _ in range(2))
        assert all(torch.equal(tensor, second.state()[name]) for name, tensor in first.state().items())

    def test_auc_rises(self) -> None:
        model = BPR(factors=8, iterations=100, learning_rate=0.1).fit(drawn(0))
        curve = [figures["auc"] for figures in model.training_.curve]
        assert np.mean(curve[-10:]) > np.mean(curve[:10])

    def test_factors_that_are_not_finite_are_one_clear_line(self) -> None:
        with pytest.raises(Diverged, match="bpr: the factors are not finite; lower learning_rate"):
            BPR(learning_rate=1e30).fit(drawn(0))
