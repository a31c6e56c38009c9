"""Scores by tile: the same as the whole, in calls of one size, to the last bit."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from test_model_contract import OF_FULL_RANK, OF_VALUES, histories, small

from recae.embedding import embed_users
from recae.models import MODELS
from recae.models.base import Embedder, EmbeddingKind
from recae.progress import Step
from recae.ranking import top_n
from recae.scoring import ROWS_PER_CALL, ScoresByTile, by_tile, equal_calls, inner_products, slices_of

BY_TILE = [name for name in MODELS if hasattr(MODELS[name], "score_by_tile")]


def test_every_model_whose_scores_are_products_scores_by_tile() -> None:
    assert set(BY_TILE) == set(MODELS) - {"random", "popularity"} - OF_VALUES


@pytest.mark.parametrize("name", BY_TILE)
def test_tiles_are_the_scores(name: str) -> None:
    seen = histories()
    model: Any = small(name).fit(seen)
    scores, tiles = model.score(seen), model.score_by_tile(seen)
    assert tiles.device == scores.device
    for columns in (1, 7, 25):
        for start in range(0, 25, columns):
            tile = torch.full((40, min(columns, 25 - start)), torch.nan)
            tiles.write(start, tile)
            torch.testing.assert_close(tile, scores[:, start : start + columns], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BY_TILE)
def test_a_ranking_by_tile_is_that_of_the_whole_scores(name: str) -> None:
    seen = histories()
    model = small(name).fit(seen)
    ours, plain = top_n(model.score, seen, 10), top_n(lambda rows: model.score(rows), seen, 10)
    np.testing.assert_array_equal(ours.items, plain.items)
    np.testing.assert_allclose(ours.scores, plain.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BY_TILE)
def test_histories_of_another_width_are_refused(name: str) -> None:
    model: Any = small(name).fit(histories())
    with pytest.raises(ValueError, match=f"{name} knows 25 items"):
        model.score_by_tile(csr_matrix((2, 24), dtype=np.float32))


def test_only_the_score_of_a_model_stands_for_the_model() -> None:
    model: Any = small("ease").fit(histories())
    assert by_tile(model.score) is model
    assert isinstance(model, ScoresByTile)
    assert by_tile(lambda rows: model.score(rows)) is None
    assert by_tile(model.score_by_tile) is None
    assert by_tile(small("popularity").score) is None


@pytest.mark.parametrize("users", [0, 1, 5, 8, 13, 16])
def test_calls_are_of_one_size_and_cover_everybody_once(users: int) -> None:
    rows = csr_matrix(np.arange(users, dtype=np.float32)[:, None] + 1)
    calls = list(equal_calls(rows, 8))
    assert all(part.shape == (8, 1) for part, _ in calls)
    covered = [part.toarray()[: wanted.stop - wanted.start, 0] - 1 for part, wanted in calls]
    assert np.concatenate([[], *covered]).tolist() == list(range(users))
    assert [row for _, wanted in calls for row in range(users)[wanted]] == list(range(users))


def test_inner_products_and_slices_are_the_plain_product() -> None:
    generator = torch.Generator().manual_seed(0)
    users, items, bias = (torch.randn(*shape, generator=generator) for shape in ((5, 3), (9, 3), (9,)))
    plain = users @ items.T
    for tiles, expected in (
        (inner_products(users, items), plain),
        (inner_products(users, items, bias), plain + bias),
        (slices_of(plain.double()), plain),
    ):
        tile = torch.empty(5, 4)
        tiles.write(3, tile)
        torch.testing.assert_close(tile, expected[:, 3:7])


@pytest.mark.parametrize("name", [name for name in MODELS if hasattr(MODELS[name], "embed_users")])
def test_an_embedding_depends_on_no_other_user_to_the_last_bit(name: str) -> None:
    seen = histories(users=300)
    model = small(name).fit(seen)
    assert isinstance(model, Embedder)
    kind: EmbeddingKind = "latent" if name in OF_FULL_RANK else "retrieval"
    together = embed_users(model, seen, kind)
    chosen = np.random.default_rng(0).permutation(300)[:137]
    np.testing.assert_array_equal(embed_users(model, seen[chosen], kind), together[chosen])
    np.testing.assert_array_equal(embed_users(model, seen[7], kind), together[7:8])
    assert embed_users(model, seen[:0]).shape == (0, embed_users(model, seen[:1]).shape[1])


def test_a_listener_hears_of_every_call() -> None:
    seen, heard = histories(users=300), list[Step]()
    model = small("als").fit(seen)
    assert isinstance(model, Embedder)
    embed_users(model, seen, listener=heard.append)
    assert [step.done for step in heard] == [ROWS_PER_CALL["cpu"], 2 * ROWS_PER_CALL["cpu"], 300]
