"""Values are kept as they are, zeros and negative ones too, from the log to the fold, the model and its evaluation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import call, log

from recae.artifact import load_model
from recae.errors import EventsError
from recae.events import open_events, read_events
from recae.experiment import read_split, training_interactions
from recae.interactions import Interactions, prepare
from recae.jobs import read_histories
from recae.metrics import Metric
from recae.models import build
from recae.notes import notes
from recae.preparation import Preparation
from recae.reading import DataSection, read_parts
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


def test_values_that_are_to_be_kept_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    plain = ratings().rename(columns={"value": "Sterne"})
    plain.to_csv("plain.csv", index=False)
    plain.to_parquet("plain.parquet")
    (tmp_path / "ratings.yaml").write_text(RECIPE.replace("ratings.csv", "plain.csv"), encoding="utf-8")
    assert call("data", "prepare", "plain.csv", "--out", "ready").code == 0
    before = sorted(tmp_path.iterdir())
    no_column = "no column of values found among 'user_id', 'item_id', 'Sterne', 'timestamp'; name it with --value-col"
    train = "train rating-als {} --values keep --out model"
    for words, said in (
        (train.format("plain.csv"), no_column),
        (train.format("plain.parquet"), no_column),
        ("compare ratings.yaml --out out", f"{no_column} (in a recipe data.columns.value)"),
        ("compare ratings.yaml --set data.min_users=2 --out out", no_column),
        ("tune ratings.yaml --set tune.ease={l2:[1]} --out out", no_column),
        (train.format("ready"), "ready: values are to be kept, and every one in it is 1; prepare the log again"),
    ):
        done = call(*words.split())
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), words
        assert said in done.err
    assert sorted(tmp_path.iterdir()) == before
    assert call("data", "describe", "plain.csv").code == 0
    # What is counted has values of its own, and so has a column that is named.
    assert call(*train.format("plain.csv").split(), "--duplicates", "sum").code == 0
    assert call("compare", "ratings.yaml", "--value-col", "Sterne", "--out", "out", "--model", "item-mean").code == 0


def test_a_log_that_comes_split_must_have_its_values_too(tmp_path: Path) -> None:
    names = ("train", "validation_tr", "validation_te", "test_tr", "test_te")
    for name in names:
        ratings()[["user_id", "item_id"]].to_csv(tmp_path / f"{name}.csv", index=False)
    section = DataSection(path=str(tmp_path), values="keep", min_items=1)
    with pytest.raises(EventsError, match="values are to be kept, and no column of values found among 'user_id', 'it"):
        read_parts(section)
    for name in names:
        (tmp_path / f"{name}.csv").unlink()
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text("0 1 2\n1 2 3\n")
    with pytest.raises(EventsError, match=r"\(t\w+\): values are to be kept, and this log has none"):
        read_parts(section)


def test_compare_keeps_values_if_it_is_told_to(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(compared)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    (compared / "ones.yaml").write_text(RECIPE.replace(", values: keep", ""), encoding="utf-8")
    words = ("compare", "ones.yaml", "--model", "item-mean", "--out", "kept", "--overwrite", "--quiet")
    assert "every held-out one is 1" in call(*words).err
    assert call(*words, "--values", "keep").code == 0
    assert load_model(Path("kept/models/item-mean")).card.preparation == KEEP


def test_errors_of_values_that_are_not_there_are_told_by_their_cause(compared: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nameless.csv"
    ratings().rename(columns={"value": "Sterne"}).to_csv(path, index=False)
    ratings().assign(value=1).to_csv("ones.csv", index=False)
    kept = compared / "out" / "models" / "item-mean"
    assert call("train", "item-mean", compared / "ratings.csv", "--out", "of-ones").code == 0
    for model, log_of, said in (
        (kept, path, f"{path}: no column of values found; name it with --value-col, or leave out rmse"),
        (kept, "ones.csv", "metric 'rmse' compares values, and every held-out one is 1; "),
        ("of-ones", path, "and the model was trained on ones; train it with --values keep, or leave the metric out"),
    ):
        done = call("evaluate", model, log_of, "--metrics", "rmse,ndcg@10")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert said in done.err
    assert call("evaluate", kept, path, "--metrics", "rmse", "--value-col", "Sterne").code == 0


STARS = [1, 2, 3, 4, 4, 5, 5, 4, 3, 2]


@pytest.mark.parametrize(
    ("values", "rated"),
    [
        (STARS, True),
        ([value / 2 for value in STARS], True),
        ([2 * value for value in STARS], True),
        ([1, 1, 1, 1, 2, 1, 2, 3, 1, 7], False),
        ([3, 90, 14, 2, 5, 5, 77, 8, 1, 40], False),
        ([value + offset / 100 for offset, value in enumerate(STARS * 3)], False),
    ],
)
def test_a_threshold_is_suggested_for_what_looks_like_ratings(values: list, rated: bool, tmp_path: Path) -> None:
    events = ratings()
    events.assign(value=np.resize(values, len(events))).to_parquet(tmp_path / "log.parquet")
    read = Interactions.from_events(open_events(tmp_path / "log.parquet"))
    assert read.counts == Interactions.from_events(read_events(tmp_path / "log.parquet")).counts
    assert read.counts == prepare(open_events(tmp_path / "log.parquet"), tmp_path / "ready").counts
    (note,) = (note for note in notes(read.counts, {"values": "binary"}) if "not looked at" in note)
    assert ("--min-value" in note) == rated
    assert "--values keep" in note
    assert not any("not looked at" in note for note in notes(read.counts, {"values": "keep"}))
