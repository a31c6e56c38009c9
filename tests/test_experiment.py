"""An experiment leaves what it promises, whole; interrupted, it goes on to the same results; it never mixes two."""

import errno
import json
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from commands import ITEMS, log, write_inputs
from mlflow import MlflowClient

import recae.autoencoder.training
import recae.tables
from recae import experiment, reading
from recae.artifact import CARD, WEIGHTS, load_model
from recae.errors import ArtifactError, EventsError, Interrupted, OutputError, SplitError
from recae.interactions import DROPS
from recae.models import build
from recae.recipe import read_recipe
from recae.tracking import Tracker

LABELS = ["popularity", "ease", "mult-vae"]
FILES = ["comparisons.parquet", "metrics.parquet", "per_user.parquet", "recipe.yaml", "recommendations.parquet"]


def untracked(name: str) -> Tracker:
    """Return a tracker that has given up: the quickest there is."""
    return Tracker(name, uri="nowhere://")


@pytest.fixture(scope="module")
def whole(make_store, tmp_path_factory):
    """A folder where an experiment ran to its end, and its outcome; nobody changes what is in it."""
    folder = write_inputs(make_store(tmp_path_factory.mktemp("experiment")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        outcome = experiment.run(read_recipe(folder / "tiny.yaml"), folder / "out")
    return folder, outcome


@pytest.fixture
def inputs(tmp_path) -> Path:
    return write_inputs(tmp_path)


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pq.read_table(path).to_pandas() for path in sorted(out.glob("*.parquet"))}


def same_results(out: Path, other: Path) -> bool:
    """Are the tables and the weights of two experiments the same, bit for bit?"""
    ours, theirs = tables(out), tables(other)
    weights = {path.relative_to(out): path.read_bytes() for path in out.glob(f"models/*/{WEIGHTS}")}
    return (
        ours.keys() == theirs.keys()
        and all(ours[name].equals(theirs[name]) for name in ours)
        and weights == {path.relative_to(other): path.read_bytes() for path in other.glob(f"models/*/{WEIGHTS}")}
    )


# What it leaves.


def test_it_leaves_exactly_what_it_promises(whole):
    folder, outcome = whole
    found = sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file())
    models = [f"models/{label}/{name}" for label in LABELS for name in ("items.parquet", CARD, WEIGHTS)]
    assert found == sorted([*FILES, "report.html", *models])
    assert outcome.out == folder / "out"
    assert sorted(path.name for path in folder.iterdir()) == ["items.csv", "log.csv", "mlflow", "out", "tiny.yaml"]


def test_the_tables_have_the_promised_columns(whole):
    found = tables(whole[0] / "out")
    assert found["metrics"].columns.tolist() == ["model", "metric", "k", "value", "ci_low", "ci_high", "users"]
    assert found["per_user"].columns.tolist() == [
        *("model", "user_id", "history_length", "held_out"),
        *("ndcg_at_10", "recall_at_5"),
    ]
    assert found["recommendations"].columns.tolist() == ["model", "user_id", "item_id", "rank", "score", "title"]
    assert found["comparisons"].columns.tolist() == [
        *("model", "other", "metric", "k", "difference", "ci_low", "ci_high", "p_value", "p_adjusted", "significant")
    ]
    assert len(found["metrics"]) == len(LABELS) * 3
    assert len(found["comparisons"]) == 3
    assert len(found["per_user"]) == len(LABELS) * 12


def test_the_figures_follow_from_the_recommendations(whole):
    folder, _ = whole
    found = tables(folder / "out")
    test = experiment.read_split(read_recipe(folder / "tiny.yaml")).test
    names = dict(enumerate(test.history.users.ids))
    ids = test.history.items.ids
    held_out, seen = (
        {names[row]: set(ids[side.matrix[row].indices]) for row in names} for side in (test.held_out, test.history)
    )
    title = {f"i{number:02}": f"Film {number}" for number in range(ITEMS)}
    metrics = found["metrics"].set_index(["model", "metric", "k"])
    for label in LABELS:
        lists = found["recommendations"][found["recommendations"]["model"] == label]
        assert lists["title"].tolist() == [title[item] for item in lists["item_id"]]
        assert lists["user_id"].drop_duplicates().tolist() == list(names.values())
        recalls = []
        for user, top in lists.groupby("user_id"):
            assert top["rank"].tolist() == list(range(1, len(top) + 1))
            assert top["score"].is_monotonic_decreasing
            assert not set(top["item_id"]) & seen[user]
            if held_out[user]:
                recalls.append(len(set(top["item_id"][:5]) & held_out[user]) / len(held_out[user]))
        row = metrics.loc[(label, "recall", 5)]
        assert row["value"] == pytest.approx(np.mean(recalls))
        assert row["users"] == len(recalls)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert metrics.loc[("ease", "ndcg", 10), "value"] > metrics.loc[("popularity", "ndcg", 10), "value"]


def test_mlflow_has_a_run_for_the_experiment_and_one_for_each_model(whole):
    folder, outcome = whole
    assert outcome.tracker.lost == ""
    client = MlflowClient(outcome.tracker.uri)
    runs = {run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("tiny").experiment_id])}
    assert sorted(runs) == sorted(["tiny", *LABELS])
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parent = runs.pop("tiny")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert parent.data.params["split.kind"] == "strong-generalisation"
    assert parent.data.params["data.min_items"] == "5"
    data = parent.inputs.dataset_inputs[0].dataset
    assert json.loads(data.profile)["digest"] == load_model(folder / "out" / "models" / "ease").card.data.digest
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {*FILES, "report.html"}
    table = outcome.metrics.set_index(["model", "metric", "k"])
    for label, run in runs.items():
        assert run.data.params["model"] == label
        for metric, k in (("ndcg", 10), ("recall", 5), ("coverage", 5)):
            assert run.data.metrics[f"{metric}_at_{k}"] == table.loc[(label, metric, k), "value"]
        assert run.outputs.model_outputs
    assert runs["ease"].data.params["l2"] == "5.0"
    steps = client.get_metric_history(runs["mult-vae"].info.run_id, "training/loss")
    assert [point.step for point in steps] == [1, 2, 3]


def test_the_report_tells_of_every_model(whole):
    report = (whole[0] / "out" / "report.html").read_text(encoding="utf-8")
    assert all(label in report for label in LABELS)
    assert "Film 3" in report


def test_the_models_say_how_they_were_made_and_can_be_used_elsewhere(whole):
    card = load_model(whole[0] / "out" / "models" / "mult-vae").card
    assert (card.model, card.hyper_parameters["hidden"], card.seed) == ("mult-vae", [8], 42)
    assert [epoch["loss"] > 0 for epoch in card.training["curve"]] == [True] * 3
    assert load_model(whole[0] / "out" / "models" / "ease").item_table["title"].notna().all()


def test_the_saved_recipe_gives_the_same_results_again(whole, tmp_path):
    again = read_recipe(whole[0] / "out" / "recipe.yaml")
    outcome = experiment.run(again, tmp_path / "again", open_tracker=untracked)
    assert same_results(tmp_path / "again", whole[0] / "out")
    assert "nothing is tracked" in outcome.tracker.lost


# What a reader must know.


def test_everything_left_out_of_the_log_is_a_caveat(inputs):
    table = log()
    table = pd.concat([table, table.iloc[:9], pd.DataFrame({"user_id": ["few", "few"], "item_id": ["i01", "i02"]})])
    table.loc[table["user_id"] == "few", ["value", "timestamp"]] = [5, 1]
    table.iloc[3, table.columns.get_loc("user_id")] = None
    table.to_parquet(inputs / "log.parquet")
    recipe = read_recipe(
        inputs / "tiny.yaml",
        {"data.path": str(inputs / "log.parquet"), "data.skip_bad_rows": True, "models": {"ease": {}, "bpr": {}}}
        | {"models.bpr.iterations": 1, "models.bpr.factors": 2},
    )
    caveats = experiment.run(recipe, inputs / "out", open_tracker=untracked).caveats
    assert "1 row with an empty user id: skipped" in caveats
    assert "8 repeated events of one user with one item: merged" in caveats
    assert sum("with fewer than 5 items (min_items): left out" in caveat for caveat in caveats) == 1
    assert any(caveat.startswith("bpr cannot fold in a new user") for caveat in caveats)
    report = (inputs / "out" / "report.html").read_text(encoding="utf-8")
    assert "repeated events of one user with one item: merged" in report


@pytest.mark.parametrize("kind", ["global-time", "leave-last-out"])
def test_splits_by_time_are_read_from_the_recipe(kind, inputs):
    split = experiment.read_split(read_recipe(inputs / "tiny.yaml", {"split": {"kind": kind}}))
    times = [part.times for part in (split.train, split.validation.held_out, split.test.held_out)]
    if kind == "global-time":
        assert times[0].max() < times[1].min() <= times[1].max() < times[2].min()
    else:
        assert "leaks the future" in split.caveat
        assert np.diff(split.test.held_out.matrix.indptr).max() == 1


def test_a_share_of_the_users_is_held_out(inputs):
    split = experiment.read_split(read_recipe(inputs / "tiny.yaml", {"split.held_out_users": 0.1}))
    users = len(split.train.users) + 2 * len(split.test.history.users)
    assert len(split.test.history.users) == len(split.validation.history.users) == round(0.1 * users)


def test_what_the_recipe_expects_of_the_data_is_counted(inputs):
    users, interactions = log().user_id.nunique(), len(log())
    kept = {"data.min_items": 1, "expect": {"users": users, "interactions": interactions, "items": ITEMS}}
    assert len(experiment.read_split(read_recipe(inputs / "tiny.yaml", kept)).train.items) == ITEMS
    for what, number in (("users", users), ("interactions", interactions), ("items", ITEMS)):
        said = rf"log.csv: {number:,} {what}, and the recipe expects 7; .* \(--set expect.{what}=null\)"
        with pytest.raises(SplitError, match=said):
            experiment.read_split(read_recipe(inputs / "tiny.yaml", {"data.min_items": 1, f"expect.{what}": 7}))


@pytest.mark.parametrize("prepared", [False, True])
def test_rare_items_go_before_users_who_have_few(prepared, inputs):
    if prepared:
        reading.prepare_log(reading.DataSection(path=str(inputs / "log.csv"), min_items=1), inputs / "ready")
    rules = {"data.min_users": 15, "data.min_items": 6, "data.items": None}
    plan = read_recipe(inputs / "tiny.yaml", rules | ({"data.path": str(inputs / "ready")} if prepared else {}))
    found = reading.read_interactions(plan.data)

    events = log().drop_duplicates(["user_id", "item_id"])
    common = events[events.groupby("item_id")["user_id"].transform("size") >= 15]
    left = common[common.groupby("user_id")["item_id"].transform("size") >= 6]
    assert 0 < len(left) < len(common) < len(events)
    assert sorted(found.users.ids) == sorted(left.user_id.unique())
    assert found.matrix.nnz == len(left) == found.counts["interactions"]
    assert sum(found.counts.get(drop, 0) for drop in DROPS) + found.matrix.nnz == found.counts["events"]
    with pytest.raises(EventsError, match="no item has 1000 users, the most common has"):
        reading.read_interactions(plan.data.model_copy(update={"min_users": 1000}))


def test_a_log_that_comes_split_is_taken_as_it_is(inputs):
    folder = inputs / "ready"
    folder.mkdir()
    lines = {side: [] for side in ("train", "test")}
    for user in range(30):
        liked = [item for item in range(ITEMS) if item % 4 == user % 4]
        lines["test"].append(f"{user} {liked.pop(user % len(liked))}")
        lines["train"].append(" ".join(map(str, [user, *liked])))
    for side, text in lines.items():
        (folder / f"{side}.txt").write_text("\n".join(text))
    items = pd.DataFrame({"item_id": range(ITEMS), "title": [f"Song {number}" for number in range(ITEMS)]})
    items.to_csv(inputs / "songs.csv", index=False)
    given = {"data.path": str(folder), "data.items": str(inputs / "songs.csv"), "split": {"kind": "given"}}
    split = experiment.read_split(read_recipe(inputs / "tiny.yaml", given))
    assert split.test.held_out.matrix.nnz == 30
    assert split.train.item_table["title"].tolist() == [f"Song {number}" for number in split.train.items.ids]


def test_an_item_table_of_another_catalogue_is_refused(inputs):
    pd.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"]}).to_csv(inputs / "items.csv", index=False)
    with pytest.raises(EventsError, match=r"items\.csv: tells nothing of any item in .*log\.csv, such as i00"):
        experiment.read_split(read_recipe(inputs / "tiny.yaml"))


def test_a_model_that_cannot_fold_in_sees_the_test_histories_and_nothing_held_out(inputs):
    bpr, ease = build("bpr"), build("ease")
    for split_by in ("strong-generalisation", "leave-last-out"):
        split = experiment.read_split(read_recipe(inputs / "tiny.yaml", {"split": {"kind": split_by}}))
        assert experiment.training_interactions(ease, split) is split.train
        seen = experiment.training_interactions(bpr, split)
        assert seen.users.ids.is_unique
        row = seen.users.to_index(split.test.history.users.ids)
        assert (seen.matrix[row] != split.test.history.matrix).nnz == 0
        assert seen.matrix[row].multiply(split.test.held_out.matrix).nnz == 0


def test_a_model_that_knows_what_validation_users_hold_out_does_not_stop_early_by_it(inputs):
    cdae = {"epochs": 3, "patience": 1, "latent": 2, "batch_size": 20, "learning_rate": 0.5}
    for split_by, known in (("strong-generalisation", False), ("leave-last-out", True)):
        overrides = {"split": {"kind": split_by}, "models": {"popularity": {}, "cdae": cdae}}
        recipe = read_recipe(inputs / "tiny.yaml", overrides)
        assert experiment.gives_away(experiment.read_split(recipe)) == known
        done = experiment.run(recipe, inputs / split_by, open_tracker=untracked)
        training = load_model(inputs / split_by / "models" / "cdae").card.training
        assert (training.get("watched") is None) == known
        assert any("did not stop early by them" in caveat for caveat in done.caveats) == known


# Interrupted, and resumed.


def test_what_was_killed_before_it_had_written_down_its_data_goes_on(inputs):
    recipe, workspace = read_recipe(inputs / "tiny.yaml"), inputs / "out.partial"
    workspace.mkdir()
    (workspace / "recipe.yaml").write_text(recipe.resolved(), encoding="utf-8")
    done = experiment.run(recipe, inputs / "out", open_tracker=untracked, resume=True)
    assert sorted(done.metrics["model"].unique()) == sorted(LABELS)


def test_what_lies_where_the_work_would_be_is_left_alone(inputs):
    recipe, workspace = read_recipe(inputs / "tiny.yaml"), inputs / "out.partial"
    workspace.mkdir()
    (workspace / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"out\.partial is in the way, and was not written by this command"):
            experiment.run(recipe, inputs / "out", open_tracker=untracked, overwrite=overwrite)
    assert (workspace / "precious.txt").read_text() == "mine"
    (workspace / "precious.txt").unlink()
    workspace.rmdir()
    workspace.write_text("a file")
    with pytest.raises(OutputError, match=r"out\.partial is in the way"):
        experiment.run(recipe, inputs / "out", open_tracker=untracked, overwrite=True)


@pytest.fixture
def stop_after(monkeypatch):
    """Make the trainings of this process stop after so many checkpoints."""
    save = recae.autoencoder.training.save_checkpoint

    def after(epochs: int, stop=lambda: signal.raise_signal(signal.SIGINT)) -> None:
        left = iter(range(epochs))

        def save_and_stop(*arguments) -> None:
            save(*arguments)
            if next(left, None) is None:
                monkeypatch.setattr(recae.autoencoder.training, "save_checkpoint", save)
                stop()

        monkeypatch.setattr(recae.autoencoder.training, "save_checkpoint", save_and_stop)

    return after


@pytest.fixture
def interrupted(inputs, stop_after):
    """A recipe that was stopped in its last model's second epoch, and where its work lies."""
    recipe = read_recipe(inputs / "tiny.yaml")
    stop_after(1)
    with pytest.raises(Interrupted):
        experiment.run(recipe, inputs / "out", open_tracker=untracked)
    assert not (inputs / "out").exists()
    return recipe, inputs / "out.partial"


def go_on(recipe, workspace: Path, **options):
    return experiment.run(recipe, workspace.with_name("out"), open_tracker=untracked, **options)


def test_a_resumed_experiment_has_the_results_of_one_that_was_never_stopped(interrupted, whole, monkeypatch):
    recipe, workspace = interrupted
    fitted = (workspace / "models" / "ease" / CARD).read_bytes()
    out = go_on(recipe, workspace, resume=True).out
    assert tables(out)["metrics"].equals(tables(whole[0] / "out")["metrics"])
    assert same_results(out, whole[0] / "out")
    assert (out / "models" / "ease" / CARD).read_bytes() == fitted
    assert not workspace.exists()
    assert not (out / "checkpoints").exists()


def test_interrupted_work_is_neither_overwritten_nor_taken_up_by_accident(interrupted):
    recipe, workspace = interrupted
    with pytest.raises(
        OutputError,
        match=r"or still goes on; wait for it, go on with it \(--resume\), or start again \(--overwrite\)",
    ):
        go_on(recipe, workspace)
    with pytest.raises(OutputError, match="there is no interrupted run to resume; leave out --resume"):
        experiment.run(recipe, workspace.with_name("other"), open_tracker=untracked, resume=True)
    assert (workspace / "checkpoints" / "mult-vae.safetensors").exists()
    go_on(recipe, workspace, overwrite=True)
    assert not workspace.exists()


def test_finished_models_of_other_data_are_not_reused(interrupted, inputs):
    recipe, workspace = interrupted
    lines = (inputs / "log.csv").read_text().splitlines(keepends=True)
    (inputs / "log.csv").write_text("".join(lines[:40] + lines[41:]))
    with pytest.raises(OutputError, match=r"out\.partial was begun with other data; start again instead"):
        go_on(recipe, workspace, resume=True)
    (inputs / "log.csv").write_text("".join(lines))
    go_on(recipe, workspace, resume=True)


def test_another_recipe_does_not_go_on_with_the_work_of_this_one(interrupted, inputs):
    _, workspace = interrupted
    other = read_recipe(inputs / "tiny.yaml", {"models.ease.l2": 6})
    with pytest.raises(OutputError, match=r"out\.partial was begun with another recipe; start again instead"):
        go_on(other, workspace, resume=True)


def test_a_damaged_model_of_the_interrupted_run_is_told(interrupted):
    recipe, workspace = interrupted
    weights = workspace / "models" / "ease" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="checksum"):
        go_on(recipe, workspace, resume=True)


def test_a_full_disk_at_the_end_costs_no_training(inputs, monkeypatch, whole):
    recipe = read_recipe(inputs / "tiny.yaml")

    write = pq.write_table

    def full(table, draft, **options):
        if draft.name == "metrics.parquet":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(table, draft, **options)

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="no space left on the disk"):
        patch.setattr(recae.tables.pq, "write_table", full)
        experiment.run(recipe, inputs / "out", open_tracker=untracked)
    assert not (inputs / "out").exists()
    cards = [(inputs / "out.partial" / "models" / label / CARD).read_bytes() for label in LABELS]
    out = go_on(recipe, inputs / "out.partial", resume=True).out
    assert [(out / "models" / label / CARD).read_bytes() for label in LABELS] == cards
    assert same_results(out, whole[0] / "out")


def test_what_stood_there_stays_until_all_of_the_new_is_there(inputs, stop_after):
    recipe = read_recipe(inputs / "tiny.yaml", {"models": {"mult-vae": {"hidden": 4, "latent": 2, "epochs": 3}}})
    out = experiment.run(recipe, inputs / "out", open_tracker=untracked).out
    before = (out / "metrics.parquet").read_bytes()
    stop_after(1)
    with pytest.raises(Interrupted):
        experiment.run(recipe, out, open_tracker=untracked, overwrite=True)
    assert (out / "metrics.parquet").read_bytes() == before
    experiment.run(recipe, out, open_tracker=untracked, overwrite=True, resume=True)
    assert yaml.safe_load((out / "recipe.yaml").read_text())["models"]["mult-vae"]["epochs"] == 3
    assert not (inputs / "out.partial").exists()


@pytest.mark.parametrize("place", ["thesis", "file.txt", ".", ".."])
def test_only_results_are_replaced_by_results(place, inputs, monkeypatch):
    (inputs / "thesis").mkdir()
    (inputs / "thesis" / "chapter 1.txt").write_text("years of work")
    (inputs / "file.txt").write_text("more of it")
    monkeypatch.chdir(inputs)
    with pytest.raises(OutputError, match=r"was not written by this command|give the output a name of its own"):
        experiment.run(read_recipe(inputs / "tiny.yaml"), Path(place), open_tracker=untracked, overwrite=True)
    assert (inputs / "thesis" / "chapter 1.txt").read_text() == "years of work"


def test_nothing_is_tracked_before_the_data_are_known_to_be_good(inputs):
    def never(name: str) -> Tracker:
        raise AssertionError("opened")

    (inputs / "log.csv").write_text("user_id,item_id\n")
    with pytest.raises(EventsError, match=r"log\.csv: no events in it"):
        experiment.run(read_recipe(inputs / "tiny.yaml"), inputs / "out", open_tracker=never)
    assert not (inputs / "out.partial").exists()
