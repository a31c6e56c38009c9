"""Values are kept as they are, zeros and negative ones too, from the log to the fold, the model and its evaluation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import call, log

from recae.artifact import load_model
from recae.events import read_events
from recae.experiment import read_split, training_interactions
from recae.interactions import Interactions, prepare
from recae.jobs import read_histories
from recae.metrics import Metric
from recae.models import build
from recae.preparation import Preparation
from recae.recipe import read_recipe
from recae.splitting import Split, given, global_time, leave_last_out, strong_generalisation
from recae.validation import watched_by

KEEP = Preparation(values="keep")
VALUES = np.array([0.0, -2.5, 3.25, -0.0625, 7.0, 0.0, 1e-3, -9.5], np.float32)


def ratings() -> pd.DataFrame:
    """Return a log whose values are told by user and item alone, some of them zero, some negative."""
    events = log()
    user, item = (events[column].str[1:].astype(int) for column in ("user_id", "item_id"))
    return events.assign(value=VALUES[(5 * user + item) % len(VALUES)])


def found(part: Interactions) -> dict[tuple[str, str], float]:
    matrix = part.matrix.tocoo()
    users, items = part.users.ids[matrix.row], part.items.ids[matrix.col]
    return dict(zip(zip(users, items, strict=True), matrix.data.tolist(), strict=True))


def wanted() -> dict[tuple[str, str], float]:
    events = ratings()
    pairs = zip(events["user_id"], events["item_id"], strict=True)
    return dict(zip(pairs, np.float32(events["value"]).tolist(), strict=True))


def write(folder: Path, kind: str) -> Path:
    events = ratings()
    path = folder / f"ratings{kind}"
    if kind == ".csv":
        events.to_csv(path, index=False)
    else:
        events.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_values_survive_the_reader_and_the_matrix(kind: str, tmp_path: Path) -> None:
    kept = Interactions.from_events(read_events(write(tmp_path, kind)), KEEP)
    assert found(kept) == wanted()
    assert (kept.matrix.data == 0).any()
    assert (kept.matrix.data < 0).any()


def test_values_survive_a_prepared_directory_and_tell_in_the_digest(tmp_path: Path) -> None:
    kept = prepare(read_events(ratings()), tmp_path / "prepared", KEEP)
    assert found(kept) == wanted()
    assert found(kept.over(kept.items)) == wanted()
    assert kept.digest() == Interactions.from_events(read_events(ratings()), KEEP).digest()
    other = ratings()
    other.loc[(other["value"] == 0).idxmax(), "value"] = 0.5
    assert Interactions.from_events(read_events(other), KEEP).digest() != kept.digest()


def splits(events: Interactions) -> dict[str, Split]:
    half = np.arange(events.matrix.nnz) % 3 > 0
    parts = {}
    for name, chosen in (("train", half), ("test", ~half)):
        row = np.repeat(np.arange(len(events.users)), np.diff(events.matrix.indptr))[chosen]
        frame = pd.DataFrame(
            {
                "user_id": events.users.ids[row],
                "item_id": events.items.ids[events.matrix.indices[chosen]],
                "value": events.matrix.data[chosen],
            }
        )
        parts[name] = Interactions.from_events(read_events(frame), KEEP)
    return {
        "strong": strong_generalisation(events, held_out_users=12),
        "time": global_time(events),
        "last": leave_last_out(events),
        "given": given(parts),
    }


@pytest.mark.parametrize("kind", ["strong", "time", "last", "given"])
def test_values_survive_every_split_on_both_sides(kind: str) -> None:
    split, values = splits(Interactions.from_events(read_events(ratings()), KEEP))[kind], wanted()
    folds = (split.validation, split.test)
    sides = [split.train, *(fold.history for fold in folds), *(fold.held_out for fold in folds)]
    for part in sides:
        there = found(part)
        assert there
        assert there == {pair: values[pair] for pair in there}
    assert any((part.matrix.data == 0).any() for part in sides[3:])
    stored = sum(part.matrix.nnz for part in (split.train, split.test.history, split.test.held_out))
    assert stored == sum(len(found(part)) for part in (split.train, split.test.history, split.test.held_out))


def test_a_model_that_cannot_fold_in_is_trained_on_the_values_of_the_histories(tmp_path: Path) -> None:
    split = strong_generalisation(Interactions.from_events(read_events(ratings()), KEEP), held_out_users=12)
    part = training_interactions(build("bpr"), split)
    assert found(part) == found(split.train) | found(split.test.history)


RECIPE = """
name: ratings
data: {path: ratings.csv, values: keep}
split: {kind: strong-generalisation, held_out_users: 12}
evaluation: {metrics: [rmse, mae, global_rmse, ndcg@10]}
models:
  popularity:
  item-mean: {user_damping: 1}
  rating-als: {factors: 2, iterations: 2}
  autoencoder: {latent: 4, likelihood: gaussian, unseen: 0, epochs: 2}
  ease: {l2: 5}
"""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of values, and what a comparison of models on it left in `out`."""
    folder = tmp_path_factory.mktemp("values")
    write(folder, ".csv")
    (folder / "ratings.yaml").write_text(RECIPE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", str(folder / "nowhere" / "x"))
        done = call("compare", "ratings.yaml", "--out", "out")
        assert done.code == 0, done.err
        (folder / "table.txt").write_text(done.out, encoding="utf-8")
    return folder


def test_a_mixed_table_has_what_each_model_can_do(compared: Path) -> None:
    table = pd.read_parquet(compared / "out" / "metrics.parquet").set_index(["model", "metric"])
    for silent in ("popularity", "ease"):
        assert table.loc[silent, "value"][["rmse", "mae", "global_rmse"]].isna().all()
        assert table.loc[silent, "value"]["ndcg"] > 0
    for able in ("item-mean", "rating-als", "autoencoder"):
        assert table.loc[able, "value"].notna().all()
    told = (compared / "table.txt").read_text(encoding="utf-8")
    rows = [line.split()[0] for line in told.splitlines() if line.split()[:1] and line.split()[0] in set(build_names())]
    assert set(rows[:3]) == {"item-mean", "rating-als", "autoencoder"}
    best = table["value"].xs("rmse", level="metric").sort_values(na_position="last")
    assert rows[:3] == best.index[:3].tolist()
    assert "popularity orders items and predicts no values: it has no rmse, mae, global_rmse" in told
    pairs = pd.read_parquet(compared / "out" / "comparisons.parquet")
    assert len(pairs) == 3
    assert set(pairs["metric"]) == {"rmse"}


def build_names() -> list[str]:
    return ["popularity", "item-mean", "rating-als", "autoencoder", "ease"]


def test_training_watched_what_was_asked_for(compared: Path) -> None:
    training = load_model(compared / "out" / "models" / "autoencoder", "cpu").card.training
    assert training["watched"] == "rmse"
    reached = [figures["rmse"] for figures in training["curve"]]
    assert int(np.argmin(reached)) + 1 == training["best_epoch"]


def test_a_metric_is_watched_where_the_model_can_tell_it() -> None:
    rmse, mae, ndcg = Metric("rmse"), Metric("mae"), Metric("ndcg", 100)
    ratings = {"likelihood": "gaussian", "unseen": 0.0}
    for settings, main, watched in (
        (ratings, mae, mae),
        (ratings, Metric("recall", 5), rmse),
        ({"likelihood": "gaussian"}, rmse, rmse),
        ({"likelihood": "gaussian"}, Metric("recall", 5), Metric("recall", 5)),
        ({}, Metric("recall", 5), Metric("recall", 5)),
        ({}, Metric("coverage", 5), ndcg),
    ):
        assert watched_by(build("mult-dae", **settings), main) == watched
    assert watched_by(build("mult-dae"), rmse) == watched_by(build("ease"), rmse) == ndcg


def test_the_figures_are_those_of_the_models_that_were_saved(compared: Path) -> None:
    split = read_split(read_recipe(compared / "ratings.yaml"))
    table = pd.read_parquet(compared / "out" / "metrics.parquet").set_index(["model", "metric"])["value"]
    held_out = split.test.held_out.matrix
    rows = np.repeat(np.arange(held_out.shape[0]), np.diff(held_out.indptr))
    for name in ("item-mean", "rating-als", "autoencoder"):
        model = load_model(compared / "out" / "models" / name, "cpu").model
        errors = model.predict(split.test.history.matrix).numpy()[rows, held_out.indices] - held_out.data
        assert table[name, "global_rmse"] == pytest.approx(np.sqrt(np.square(errors, dtype=float).mean()), rel=1e-5)


def test_a_model_of_values_reads_values_wherever_it_is_asked(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(compared)
    fitted = load_model(Path("out/models/autoencoder"), "cpu")
    assert fitted.card.preparation == KEEP
    assert found(read_histories(fitted, "ratings.csv").histories) == wanted()
    for words in ("recommend {} ratings.csv -n 3 --out top.parquet", "embed {} ratings.csv --out vectors.parquet"):
        assert call(*words.format("out/models/autoencoder").split()).code == 0
    done = call("evaluate", "out/models/autoencoder", "ratings.csv", "--metrics", "rmse,global_mae,ndcg@10")
    assert done.code == 0, done.err
    assert "rmse" in done.out
    split = read_split(read_recipe(Path("ratings.yaml")))
    for name, side in (("history", split.test.history), ("held", split.test.held_out)):
        pairs = pd.DataFrame(found(side).items(), columns=["pair", "value"])
        ids = pd.DataFrame(pairs["pair"].tolist(), columns=["user_id", "item_id"])
        ids.assign(value=pairs["value"]).to_csv(f"{name}.csv", index=False)
    command = "evaluate out/models/item-mean history.csv --held-out held.csv --metrics global_rmse --json"
    judged = call(*command.split())
    assert judged.code == 0, judged.err
    table = pd.read_parquet("out/metrics.parquet").set_index(["model", "metric"])["value"]
    assert json.loads(judged.out)["metrics"][0]["value"] == pytest.approx(table["item-mean", "global_rmse"])


def test_train_keeps_values_if_it_is_told_to_and_stops_by_their_errors(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, ".csv")
    settings = [word for one in ("likelihood=gaussian", "unseen=0", "epochs=3", "latent=4") for word in ("--set", one)]
    done = call(
        "train", "autoencoder", "ratings.csv", "--out", "m", "--values", "keep", "--validation-share", 0.2, *settings
    )
    assert done.code == 0, done.err
    card = load_model(tmp_path / "m", "cpu").card
    assert card.preparation == KEEP
    assert card.training["watched"] == "rmse"
    assert "of 3: rmse " in done.out
