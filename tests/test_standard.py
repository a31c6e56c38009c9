"""Values told in deviations: the scale they came in does not matter, nor does what every item's mean is."""

from typing import Any

import numpy as np
import pytest
import torch
from checkerboard import checkerboard
from scipy.sparse import csr_matrix

from recae.autoencoder.batches import batch_of
from recae.autoencoder.standard import Scale, Standard, by_root_of_length
from recae.errors import Interrupted
from recae.metrics import Metric
from recae.models import build
from recae.models.base import FitOptions
from recae.validation import Validation

RATINGS: dict[str, Any] = {"likelihood": "gaussian", "unseen": 0.0, "learning_rate": 0.01}
NETWORKS = [
    ("autoencoder", {"latent": 8, "weight_decay": 0.0}),
    ("mult-dae", {"latent": 8, "weight_decay": 0.0}),
    ("mult-vae", {"hidden": (16,), "latent": 8, "kl_cap": 0.01}),
]
EVERY = pytest.mark.parametrize(
    ("name", "settings"), NETWORKS, ids=lambda value: value if isinstance(value, str) else ""
)


def rated() -> csr_matrix:
    """Return values of two tastes around means of their own, a zero that is stored among them, and an empty history."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(60, 1)) @ generator.normal(size=(1, 15)) + 4 * generator.normal(size=15)
    told = csr_matrix(np.where(generator.random(values.shape) < 0.6, values, 0), dtype=np.float32)
    told.data[5] = 0
    told.data[told.indptr[-2] :] = 0
    return csr_matrix((told.data, told.indices, np.append(told.indptr, told.nnz)), shape=(61, 15))


def test_a_scale_is_means_and_the_deviation_from_them() -> None:
    given = rated()
    scale, table = Scale.of(given), given.toarray()
    there = csr_matrix((np.ones(given.nnz), given.indices, given.indptr), shape=given.shape).toarray() > 0
    means = np.array([table[there[:, item], item].mean() for item in range(15)])
    assert scale.deviation == pytest.approx((table - means)[there].std(), rel=1e-5)
    np.testing.assert_allclose(scale.means * scale.deviation, means, rtol=1e-4)
    alike = Scale.of(csr_matrix(np.full((3, 2), 7.0)))
    assert (alike.deviation, alike.means.tolist()) == (1, [7, 7])


def test_what_is_read_is_centred_and_divided_by_the_root_of_its_length() -> None:
    given = rated()
    scale = Scale.of(given)
    standard = Standard(15, scale).to_empty(device="cpu")
    standard.begin(torch.empty(15))
    raw = batch_of(given, "cpu")
    raw = raw.with_values(torch.where(raw.values == 0, torch.finfo(torch.float32).tiny, raw.values))
    scaled = standard.scaled(raw)
    assert (scaled.values != 0).all()
    read = by_root_of_length(standard.centred(scaled), scaled)
    lengths = np.repeat(np.diff(given.indptr), np.diff(given.indptr))
    expected = (given.data / scale.deviation - scale.means.numpy()[given.indices]) / np.sqrt(lengths)
    np.testing.assert_allclose(read.values, expected, rtol=1e-4, atol=1e-5)


@EVERY
def test_ratings_in_other_units_are_predicted_in_those(name: str, settings: dict[str, Any]) -> None:
    given = rated()
    model: Any = build(name, **RATINGS, **settings, epochs=5).fit(given)
    predicted = model.predict(given)
    larger: Any = build(name, **RATINGS, **settings, epochs=5).fit(given * np.float32(1024))
    torch.testing.assert_close(larger.predict(given * np.float32(1024)), predicted * 1024, rtol=1e-3, atol=0.5)
    torch.testing.assert_close(larger.score(given * np.float32(1024)), model.score(given), rtol=1e-3, atol=1e-3)


@EVERY
def test_a_network_of_ratings_begins_at_the_items_means(name: str, settings: dict[str, Any]) -> None:
    given = rated()
    still: Any = build(name, **RATINGS | {"learning_rate": 1e-30}, **settings, epochs=1).fit(given)
    scale = Scale.of(given)
    # An empty history has only what the first weights make of nothing, or of a code of nothing.
    torch.testing.assert_close(still.predict(given[60]), (scale.means * scale.deviation)[None], rtol=0.02, atol=0.02)


@EVERY
def test_a_rated_checkerboard_is_learned_where_all_items_have_one_mean(name: str, settings: dict[str, Any]) -> None:
    board = checkerboard(rated=True)
    model: Any = build(name, **RATINGS, **settings, epochs=150, dropout=0.3).fit(board.history)
    predicted = model.predict(board.history).numpy()
    unrated = np.where(board.history.toarray() > 0, -np.inf, predicted)
    assert (unrated.argmax(axis=1) == np.arange(12)).all()
    restored: Any = build(name, **RATINGS, **settings).restore(model.state())
    assert torch.equal(restored.predict(board.history), model.predict(board.history))
    assert torch.equal(restored.score(board.history), model.score(board.history))


def test_the_lowest_error_is_kept_and_a_training_that_is_resumed_is_the_same(tmp_path: Any) -> None:
    board = checkerboard(rated=True)
    assert board.watched == Metric("ndcg", 100)
    fold = Validation(board.history, board.held_out, Metric("rmse"))
    settings = {**RATINGS, "latent": 8, "weight_decay": 0.0, "batch_size": 4, "patience": 50}
    whole: Any = build("autoencoder", **settings, epochs=12).fit(board.history, FitOptions(validation=fold))
    reached = [figures["rmse"] for figures in whole.training_.curve]
    assert whole.training_.watched == "rmse"
    assert whole.training_.best_epoch == int(np.argmin(reached)) + 1
    assert fold.measure(whole) == min(reached)

    def stop(step: Any) -> None:
        if step.done == 7:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.safetensors"
    options = FitOptions(validation=fold, checkpoint=path)
    with pytest.raises(Interrupted, match="interrupted after 7"):
        build("autoencoder", **settings, epochs=12).fit(
            board.history, FitOptions(validation=fold, checkpoint=path, listener=stop)
        )
    resumed: Any = build("autoencoder", **settings, epochs=12).fit(board.history, options)
    assert [figures["rmse"] for figures in resumed.training_.curve] == reached
    assert all(torch.equal(tensor, resumed.state()[key]) for key, tensor in whole.state().items())
    with pytest.raises(ValueError, match="predicts no values"):
        fold.measure(build("mult-dae", latent=4, epochs=1).fit(board.history))
