"""Who is hard to explain: what surprise is, against which length, and a planted answer that must come out on top."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from checkerboard import checkerboard
from commands import call, log
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from scipy.special import log_softmax
from scipy.stats import bernoulli, norm, poisson
from sklearn.metrics import roc_auc_score

from recae.anomalies import FOLDS, ODDEST, Surprise, Usual, folds_of, lonely, oddest_of, rank_by_oddity, surprise_of
from recae.errors import Diverged
from recae.models import MODELS, build
from recae.models.base import Explainer
from recae.models.neural import NeuralRecommender
from recae.progress import Step
from recae.tables import about

SETTINGS: dict[str, Any] = {"hidden": (16,), "latent": 8, "learning_rate": 0.01, "epochs": 100, "kl_cap": 0.01}


Board = tuple[csr_matrix, NDArray[np.bool_]]


def histories(users: int, items: int, seed: int = 0) -> csr_matrix:
    """Histories of all lengths, from none."""
    rng = np.random.default_rng(seed)
    return csr_matrix((rng.random((users, items)) < rng.random((users, 1))).astype(np.float32))


@pytest.fixture(scope="module")
def board() -> Board:
    """Users who like all items of one parity and, planted among them, some who like any half of the items.

    These come in pairs who share all items between them, so that all items are as popular, and all histories as long.
    """
    rng = np.random.default_rng(3)
    whole = checkerboard(24)
    mixed = np.zeros((6, 24), dtype=np.float32)
    for first in range(0, 6, 2):
        half = rng.permutation(24)[:12]
        mixed[first], mixed[first + 1, half] = 1, 1
        mixed[first, half] = 0
    seen = vstack([whole.history + whole.held_out] * 8 + [csr_matrix(mixed)], format="csr")
    order = rng.permutation(seen.shape[0])
    return csr_matrix(seen[order]), order >= 8 * 24


@pytest.fixture(scope="module")
def model(board: Board) -> Any:
    return build("mult-vae", **SETTINGS).fit(board[0])


# The known answer.


def test_users_of_no_parity_come_out_on_top_of_a_checkerboard(board: Board, model: Any) -> None:
    seen, planted = board
    found = rank_by_oddity(surprise_of(model, seen))
    assert set(found.rows[: planted.sum()]) == set(np.flatnonzero(planted))
    z = np.empty(len(planted))
    z[found.rows] = found.z
    assert roc_auc_score(planted, z) == 1
    assert roc_auc_score(planted, np.diff(seen.indptr)) == 0.5
    popularity = np.bincount(seen.indices)[seen.indices]
    assert roc_auc_score(planted, np.add.reduceat(popularity, seen.indptr[:-1])) == 0.5
    assert (found.percentile[0], found.percentile[-1]) == (100 * (len(planted) - 1) / len(planted), 0)


def test_an_item_that_does_not_belong_is_the_most_surprising(model: Any) -> None:
    stranger = checkerboard(24).history[:2].tolil()
    stranger[0, 7] = 1
    surprise = surprise_of(model, csr_matrix(stranger))
    columns = csr_matrix(stranger).indices[oddest_of(surprise, np.array([0]), 1)[0]]
    assert columns.tolist() == [7]


# What surprise is.


def by_hand(model: Any, seen: csr_matrix, seed: int) -> list[list[float]]:
    """Return the surprise of every interaction of every user, one by one."""
    fold, dense = folds_of(seen, seed), seen.toarray()
    surprises = []
    for user in range(seen.shape[0]):
        places = range(seen.indptr[user], seen.indptr[user + 1])
        mine = []
        for place in places:
            shown = dense[user].copy()
            shown[[seen.indices[other] for other in places if fold[other] == fold[place]]] = 0
            logits = model.score(csr_matrix(shown[None])).numpy()[0].astype(np.float64)
            item = seen.indices[place]
            z, x = logits[item], dense[user, item]
            mine.append(
                {
                    "multinomial": lambda z=logits, item=item: -log_softmax(z)[item],
                    "bernoulli": lambda z=z, x=x: -bernoulli.logpmf(x, 1 / (1 + np.exp(-z))),
                    "gaussian": lambda z=z, x=x: -norm.logpdf(x, z) - 0.5 * np.log(2 * np.pi),
                    "poisson": lambda z=z, x=x: -poisson.logpmf(x, np.exp(z)),
                }[model.likelihood]()
            )
        surprises.append(mine)
    return surprises


@pytest.mark.parametrize("likelihood", ["multinomial", "bernoulli", "gaussian", "poisson"])
def test_surprise_is_that_of_each_item_hidden_with_its_fold(likelihood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recae.kernels.tiles.NARROWEST", 4)
    monkeypatch.setattr("recae.kernels.tiles.TILE", 4 * 128)  # the catalogue takes several tiles
    seen = histories(30, 40)
    if likelihood in ("gaussian", "poisson"):
        seen.data = np.random.default_rng(1).integers(1, 5, seen.nnz).astype(np.float32)
    short = dict(SETTINGS, epochs=5)
    model = build("mult-vae", likelihood=likelihood, **short).fit(seen)
    surprise = surprise_of(model, seen, seed=5)
    for user, mine in enumerate(by_hand(model, seen, seed=5)):
        found = surprise.of_each[seen.indptr[user] : seen.indptr[user + 1]]
        if len(mine) < 2:
            assert np.isnan(found).all()
            assert np.isnan(surprise.of_user[user])
        else:
            np.testing.assert_allclose(found, mine, rtol=2e-4, atol=1e-5)
            worst = sorted(mine, reverse=True)[: int(np.ceil(ODDEST * len(mine)))]
            assert surprise.of_user[user] == pytest.approx(np.mean(worst), rel=2e-4)
    assert surprise.lengths.tolist() == np.diff(seen.indptr).tolist()


def test_every_network_explains_and_what_has_one_in_it() -> None:
    seen = histories(20, 12)
    for name, kind in MODELS.items():
        assert (issubclass(kind, NeuralRecommender) or name == "hybrid") == hasattr(kind, "log_likelihoods"), name
    model: Any = build("rec-vae", hidden=8, layers=2, latent=4, epochs=1).fit(seen)
    assert isinstance(model, Explainer)
    assert np.isfinite(surprise_of(model, seen).of_user[np.diff(seen.indptr) > 1]).all()


def test_a_users_figures_depend_on_nobody_else(board: Board, model: Any) -> None:
    together = surprise_of(model, board[0])
    backwards = surprise_of(model, board[0][::-1])
    assert np.array_equal(backwards.of_user[::-1], together.of_user)
    alone = np.concatenate([surprise_of(model, board[0][user]).of_user for user in range(5)])
    assert np.array_equal(alone, together.of_user[:5])
    assert not np.array_equal(surprise_of(model, board[0], seed=1).of_user, together.of_user)


def test_nobody_is_asked_for_more_than_a_block(board: Board, model: Any) -> None:
    steps: list[Step] = []
    surprise_of(model, board[0], listener=steps.append)
    assert [step.done for step in steps] == [128, board[0].shape[0]]
    nobody = surprise_of(model, board[0][:0])
    assert (len(nobody.of_each), len(nobody.of_user)) == (0, 0)
    assert len(rank_by_oddity(nobody).rows) == 0


def test_a_model_that_cannot_be_shown_a_part_is_refused(board: Board) -> None:
    class Closed:
        name, folds_in = "closed", False

    with pytest.raises(ValueError, match="closed cannot be shown a part"):
        surprise_of(Closed(), board[0])  # type: ignore[arg-type]


def test_a_model_that_diverged_says_so(board: Board, model: Any) -> None:
    state = {name: tensor if "density" in name else tensor * np.nan for name, tensor in model.state().items()}
    broken = build("mult-vae", **SETTINGS).restore(state)
    with pytest.raises(Diverged, match="what the model expects of user row 0 is not a number"):
        surprise_of(broken, board[0])  # type: ignore[arg-type]


def test_who_has_few_others_of_about_the_same_length_is_counted() -> None:
    def of(lengths: list[int]) -> Surprise:
        return Surprise(np.ones(sum(lengths), np.float32), np.ones(len(lengths)), np.array(lengths))

    crowd, own = of([6] * 11 + [30]), of([6, 9, 10, 30, 4])
    assert lonely(crowd, crowd) == 1  # the one of 30; of the others each has ten beside
    assert lonely(own, crowd) == 2  # 10 and 30: more than half as long again


@given(st.integers(0, 2**32 - 1))
def test_folds_are_as_equal_as_can_be_and_a_historys_own(seed: int) -> None:
    seen = histories(9, 30, seed=seed % 7)
    fold = folds_of(seen, seed)
    for user in range(9):
        counts = np.bincount(fold[seen.indptr[user] : seen.indptr[user + 1]], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(folds_of(seen[4], seed), fold[seen.indptr[4] : seen.indptr[5]])


# What is usual.


def surprises(lengths: np.ndarray, of_user: np.ndarray) -> Surprise:
    return Surprise(np.empty(0, np.float32), of_user, lengths)


def test_length_alone_makes_nobody_odd() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 500, 4000)
    of_user = 9 - np.log(lengths) + rng.normal(size=4000) / np.sqrt(lengths)
    odd = np.arange(4000) % 100 == 0
    of_user[odd] += 8 / np.sqrt(lengths[odd])
    found = rank_by_oddity(surprises(lengths, of_user))
    assert odd[found.rows[:40]].all()
    others = ~odd[found.rows]
    assert abs(np.corrcoef(np.log(found.lengths[others]), found.z[others])[0, 1]) < 0.1
    assert abs(found.z[others].mean()) < 0.1
    assert 0.9 < found.z[others].std() < 1.2


def test_a_hundredth_of_outliers_hardly_moves_what_is_usual() -> None:
    rng = np.random.default_rng(0)
    lengths, of_user = rng.integers(5, 500, 4000), rng.normal(7, 1, 4000)
    before = Usual.of(surprises(lengths, of_user))
    of_user[::100] = 1e9
    after = Usual.of(surprises(lengths, of_user))
    np.testing.assert_allclose(after.surprise, before.surprise, atol=0.1)
    np.testing.assert_allclose(after.spread, before.spread, atol=0.1)


def test_users_compared_with_others_get_these_others_percentiles() -> None:
    rng = np.random.default_rng(0)
    others = surprises(np.full(1000, 20), rng.normal(7, 1, 1000))
    asked = surprises(np.array([20, 1, 20, 20]), np.array([7.0, np.nan, 10.0, 3.0]))
    found = rank_by_oddity(asked, others)
    assert found.rows.tolist() == [2, 0, 3]
    assert found.percentile == pytest.approx([99.9, 50, 0], abs=5)
    assert found.z == pytest.approx([3, 0, -4], abs=0.4)


@pytest.mark.parametrize("users", [1, 2, 7])
def test_users_who_are_all_the_same_are_not_odd(users: int) -> None:
    found = rank_by_oddity(surprises(np.full(users, 9), np.full(users, 7.0)))
    assert found.z.tolist() == [0] * users
    assert found.percentile.tolist() == [0] * users
    assert found.rows.tolist() == list(range(users))


# The command.

SMALL = ["--set", "hidden=8", "--set", "latent=4", "--set", "epochs=5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with logs and models; nobody changes them."""
    folder = tmp_path_factory.mktemp("anomalies")
    events = log()
    events.to_csv(folder / "log.csv", index=False)
    items = events[["item_id"]].drop_duplicates()
    items.assign(title="Film " + items["item_id"].str[1:]).to_csv(folder / "items.csv", index=False)
    one = events.head(1).assign(user_id="once")
    stranger = events.head(2).assign(user_id="stranger", item_id=["x1", "x2"])
    pd.concat([events, one, stranger]).to_csv(folder / "more.csv", index=False)
    one.to_csv(folder / "once.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call("train", "mult-vae", "log.csv", "--out", "vae", "--items", "items.csv", *SMALL).code == 0
        assert call("train", "ease", "log.csv", "--out", "ease").code == 0
        assert call("train", "cdae", "log.csv", "--out", "cdae", "--set", "latent=4", "--set", "epochs=2").code == 0
        yield folder


def test_the_command_ranks_every_user_and_names_what_surprises(folder: Path) -> None:
    done = call("anomalies", "vae", "more.csv", "--out", "odd.parquet", "-n", 3)
    assert (done.code, done.err) == (0, "")
    table = pq.read_table("odd.parquet").to_pandas()
    assert len(table) == log()["user_id"].nunique()
    assert list(table) == [
        "user_id", "surprise", "expected", "z", "percentile", "history_length", "surprising_items", "surprising_titles",
    ]  # fmt: skip
    assert table["z"].is_monotonic_decreasing
    assert table["percentile"].is_monotonic_decreasing
    assert table["percentile"].between(0, 100).all()
    events = log().groupby("user_id")["item_id"].agg(set)
    for user, items, titles in zip(
        table["user_id"], table["surprising_items"], table["surprising_titles"], strict=True
    ):
        assert set(items) <= events[user]
        assert [f"Film {item[1:]}" for item in items] == list(titles)
    first = table.iloc[0]
    assert str(first["user_id"]) in done.out
    assert first["surprising_titles"][0] in done.out
    assert table["user_id"].iloc[3] not in done.out
    assert "odd.parquet: 60 rows" in done.out
    assert "note: 2 users with fewer than two items the model knows: not judged" in done.out
    assert "note: 2 events of items the model does not know: left out" in done.out
    assert "note: 60 users to compare with, fewer than the 100" in done.out
    assert about(Path("odd.parquet"))["model"] == "mult-vae"
    again = call("anomalies", "vae", "more.csv", "--out", "odd.parquet")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert call("anomalies", "vae", "more.csv", "--out", "odd.parquet", "--overwrite", "--quiet") == type(done)(
        0, "", ""
    )
    assert pq.read_table("odd.parquet").to_pandas().equals(table)


def test_one_user_may_be_compared_with_a_log(folder: Path) -> None:
    one = log().query("user_id == 'u07'")
    one.to_csv("one.csv", index=False)
    done = call("anomalies", "vae", "one.csv", "--out", "one.parquet", "--reference", "log.csv", "--json")
    found = json.loads(done.out)
    assert (done.code, found["rows"]) == (0, 1)
    assert call("anomalies", "vae", "log.csv", "--out", "all.parquet", "--quiet").code == 0
    everybody = pq.read_table("all.parquet").to_pandas().set_index("user_id")
    assert found["oddest"][0]["z"] == pytest.approx(everybody["z"]["u07"])
    assert found["oddest"][0]["surprising_items"] == list(everybody["surprising_items"]["u07"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ease", "log.csv"], "ease has no likelihood to find anomalies by; these models have one: .*mult-vae"),
        (
            ["cdae", "log.csv"],
            "cdae knows only whole histories, and anomalies are found by hiding a part of one; these",
        ),
        (["vae", "once.csv"], "no user has two items that the model knows, and one item cannot explain another"),
        (["vae", "log.csv", "--reference", "once.csv"], "no user to compare with has two items"),
        (["vae", "log.csv", "--out", "odd.csv"], "give it a name that ends in .parquet"),
        (["vae", "nothing.csv"], "nothing.csv"),
    ],
)
def test_what_cannot_be_told_is_one_line_and_code_2(folder: Path, words: list[str], said: str) -> None:
    out = [] if "--out" in words else ["--out", "not.parquet"]
    done = call("anomalies", *words, *out)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert re.search(said, done.err), done.err
    assert not Path("not.parquet").exists()


def test_a_full_disk_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recae.tables.pq.write_table", full)
    done = call("anomalies", "vae", "log.csv", "--out", "full.parquet")
    assert done.code == 2
    assert "full.parquet" in done.err
    assert list(Path().glob("*full*")) == []
