"""The commands, as a person or a nightly job meets them: what they print and write, and how they end."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from commands import ITEMS, USERS, Done, call, log, start, write_inputs

import recae.autoencoder.training
import recae.jobs
import recae.models.linear
import recae.models.popularity
from recae.artifact import CARD, WEIGHTS, load_model
from recae.cli import app
from recae.errors import ModelError
from recae.tables import about

LABELS = ["popularity", "ease", "mult-vae"]
SMALL = ["--set", "hidden=8", "--set", "latent=4", "--set", "epochs=2"]
FAST = ["--set", "models={popularity: {}}"]
COMMANDS = [
    "compare",
    "tune",
    "units",
    "train",
    "evaluate",
    "recommend",
    "embed",
    "generate",
    "anomalies",
    "models",
    "doctor",
    "data list",
    "data fetch",
    "data describe",
    "data prepare",
]


@pytest.fixture(scope="module")
def folder(make_store, tmp_path_factory):
    """A folder with inputs, a store, the results of a comparison, and a model that was trained; nobody changes them."""
    folder = write_inputs(make_store(tmp_path_factory.mktemp("cli")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        compared = call("compare", "tiny.yaml", "--out", "out")
        trained = call("train", "mult-vae", "log.csv", "--out", "vae", "--items", "items.csv", *SMALL)
    return folder, compared, trained


@pytest.fixture
def inside(folder, monkeypatch) -> Path:
    """The folder as the current one, without a tracking store to go to."""
    monkeypatch.chdir(folder[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    return folder[0]


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> Path:
    """Inputs of one's own as the current folder, without a tracking store to go to."""
    monkeypatch.chdir(write_inputs(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    return tmp_path


def read(path: Path) -> pd.DataFrame:
    return pq.read_table(path).to_pandas()


def told(done: Done) -> str:
    """Return the one line that a command which failed said."""
    assert done.err.startswith("recae: ")
    assert done.err.count("\n") == 1
    return done.err.removeprefix("recae: ").rstrip("\n")


# Help.


def test_help_answers_without_loading_what_the_work_needs(tmp_path):
    script = (
        "import sys; sys.argv = ['recae', *sys.argv[1:]]\n"
        "from recae.cli import main\n"
        "late = {'torch', 'mlflow', 'pandas', 'numpy', 'scipy', 'pyarrow', 'implicit'}\n"
        "try: main()\n"
        "finally: print('loaded:', sorted(late & set(sys.modules)))"
    )
    for words in (["--help"], ["--version"], ["compare", "--help"], ["compare"], ["train", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.endswith("loaded: []\n"), done


def test_looking_at_a_log_loads_nothing_that_models_or_reports_need(inputs):
    script = (
        "import sys; sys.argv = ['recae', *sys.argv[1:]]\n"
        "from recae.cli import main\n"
        "late = {'torch', 'mlflow', 'implicit', 'matplotlib', 'sklearn', 'triton'}\n"
        "try: main()\n"
        "finally: print('loaded:', sorted(late & set(sys.modules)))"
    )
    for words in ("list", "describe log.csv", "prepare log.csv --out ready", "describe ready --json"):
        done = subprocess.run(
            [sys.executable, "-c", script, "data", *words.split()], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "loaded: []"), done


REFUSED_AT_SIGHT = {
    "train easee log.csv --out x": "unknown model 'easee'; did you mean 'ease'?",
    "train nofile.csv --out x": "nofile.csv: no such file or folder",
    "train log.csv --out there.parquet": "there.parquet exists already",
    "train log.csv --out log.csv/deep/model": "log.csv/deep/model: log.csv is in the way, a file and no directory",
    "recommend model log.csv --out there.parquet": "there.parquet exists already",
    "recommend model log.csv --out x.csv": "x.csv: tables are written as Parquet",
    "embed model log.csv --out x.csv": "x.csv: tables are written as Parquet",
    "anomalies model log.csv --out x.csv": "x.csv: tables are written as Parquet",
    "units model --out x.csv": "x.csv: tables are written as Parquet",
    "generate model --users 0 --out x.parquet": "--users 0: ask for at least 1",
    "generate model --users 99999999999999999999 --out x.parquet": "--users 99999999999999999999: ask for at most 100,",
    "compare tiny.yaml --out there.parquet": "there.parquet exists already",
    "tune tiny.yaml --out there.parquet": "there.parquet exists already",
}


def test_what_is_refused_at_sight_does_not_wait_for_what_the_work_needs(inputs):
    (inputs / "there.parquet").touch()
    script = (
        "import sys\n"
        "from recae.cli import main\n"
        "for words in sys.argv[1:]:\n"
        "    sys.argv = ['recae', *words.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert end.code == 2, words\n"
        "print('loaded:', sorted({'torch', 'mlflow', 'implicit', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, *REFUSED_AT_SIGHT], capture_output=True, text=True, timeout=60)
    assert done.stdout == "loaded: []\n", done
    for line, said in zip(done.stderr.splitlines(), REFUSED_AT_SIGHT.values(), strict=True):
        assert line.startswith(f"recae: {said}")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_explained(command):
    done = call(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    explained = typer.main.get_command(app)
    for word in command.split():
        explained = explained.commands[word]
    assert explained.help
    assert [parameter.name for parameter in explained.params if not parameter.help] == []


def test_no_command_at_all_shows_the_help_once():
    done = call()
    assert done.code == 2
    assert "Usage: recae" in done.out
    assert done.err == ""


def test_version_is_recaes():
    assert call("--version") == Done(0, f"recae {recae.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian", "no such command 'trian'; did you mean 'train'?; see recae --help"),
        ("data ftech", "no such command 'ftech'; did you mean 'fetch'?; see recae data --help"),
        ("train ease log.csv --outt x", "no such option: --outt; did you mean --out"),
        ("train ease log.csv --out x --min-items 0", "invalid value for '--min-items': input should be greater than"),
        (
            "train ease log.csv --out x --duplicates lst",
            "invalid value for '--duplicates': 'lst' is not one of 'last',",
        ),
        ("train multvae log.csv --out x", "unknown model 'multvae'; did you mean 'mult-vae'?"),
        ("train mult-vae log.csv --out x --set latnet=3", "mult-vae has no hyper-parameter 'latnet'; did you mean 'la"),
        ("train ease --out model", "train ease wants a log: recae train ease EVENTS --out DIR"),
        ("train --out model", "train MODEL wants a log: recae train MODEL EVENTS --out DIR"),
    ],
)
def test_a_slip_of_the_finger_is_told_what_was_meant(words, said, inputs):
    done = call(*words.split())
    assert (done.code, done.out) == (2, "")
    assert told(done).startswith(said)


# Compare.


def test_compare_shows_its_recipe_a_table_and_where_the_results_are(folder):
    _, done, _ = folder
    assert (done.code, done.err) == (0, "")
    recipe, table = done.out.split("\n\n", 1)
    assert list(yaml.safe_load(recipe)["models"]) == LABELS
    assert "ndcg@10" in table and "significantly better on ndcg@10" in table
    first_words = [line.split()[0] for line in table.splitlines() if line.strip()]
    order = list(dict.fromkeys(word for word in first_words if word in LABELS))
    assert sorted(order) == sorted(LABELS)
    assert order.index("ease") < order.index("popularity")
    assert "mean over 12 test users" in table
    assert "results in out; the report is out/report.html" in table
    assert "tracked in sqlite:///" in table


def test_compare_writes_titles_and_a_model_directory_for_each_model(folder):
    out = folder[0] / "out"
    assert sorted(path.name for path in (out / "models").iterdir()) == sorted(LABELS)
    top = read(out / "recommendations.parquet")
    assert top.columns.tolist() == ["model", "user_id", "item_id", "rank", "score", "title"]
    assert top["title"].str.startswith("Film ").all()


def test_compare_takes_a_log_of_ones_own_with_columns_of_its_own(inputs):
    names = {"user_id": "customer", "item_id": "sku", "value": "stars", "timestamp": "when"}
    log().assign(item_id=lambda table: table["item_id"] + " ü").rename(columns=names).to_parquet("my_events.parquet")
    columns = ["--user-col", "customer", "--item-col", "sku", "--value-col", "stars", "--time-col", "when"]
    overrides = [*FAST, "--set", "data.min_value=2", "--set", "split={kind: global-time}", "--seed", "7"]
    done = call("compare", "tiny.yaml", "--data", "my_events.parquet", *columns, *overrides, "--out", "new/out")
    assert done.code == 0
    plan = yaml.safe_load((inputs / "new" / "out" / "recipe.yaml").read_text())
    assert plan["data"]["columns"] == {"user": "customer", "item": "sku", "value": "stars", "time": "when"}
    assert (plan["data"]["path"], plan["data"]["items"]) == (str(inputs / "my_events.parquet"), None)
    assert (plan["seed"], plan["split"]["kind"], plan["data"]["min_value"]) == (7, "global-time", 2.0)
    top = read(inputs / "new" / "out" / "recommendations.parquet")
    assert "title" not in top.columns
    assert top["item_id"].str.endswith(" ü").all()
    assert f"note: {int((log()['value'] < 2).sum())} events below min_value: left out" in done.out


def test_compare_runs_those_of_the_models_that_are_named(inputs):
    done = call("compare", "tiny.yaml", "--model", "ease", "--model", "popularity", "--out", "out")
    assert done.code == 0
    assert [*yaml.safe_load((inputs / "out" / "recipe.yaml").read_text())["models"]] == ["popularity", "ease"]
    assert sorted(path.name for path in (inputs / "out" / "models").iterdir()) == ["ease", "popularity"]
    assert "mult-vae" not in done.out


def test_an_item_table_may_call_its_ids_as_the_log_does(inputs):
    (inputs / "log.csv").write_text((inputs / "log.csv").read_text().replace("item_id", "Artikel", 1))
    items = (inputs / "items.csv").read_text()
    (inputs / "items.csv").write_text(items.replace("item_id", "Artikel", 1))
    words = ("train", "popularity", "log.csv", "--items", "items.csv", "--out", "model", "--overwrite")
    done = call(*words, "--item-col", "Artikel")
    assert (done.code, done.err) == (0, "")
    assert load_model(Path("model")).item_table["title"].str.startswith("Film ").all()
    # A usual name comes first: the log's may be of something else there.
    (inputs / "items.csv").write_text(items.replace("title", "Artikel", 1))
    assert call(*words, "--item-col", "Artikel").code == 0
    assert load_model(Path("model")).item_table["Artikel"].str.startswith("Film ").all()
    (inputs / "items.csv").write_text(items.replace("item_id", "Ware", 1))
    said = "items.csv: not one item id column among 'Ware', 'title'; call it item_id, or Artikel as in the log"
    assert told(call(*words, "--item-col", "Artikel")) == said


def test_compare_without_an_output_makes_a_new_place_each_time(inputs):
    done = call("compare", "tiny.yaml", *FAST, "--json")
    assert done.code == 0
    out = json.loads(done.out)["out"]
    assert re.fullmatch(r"runs/tiny/\d{8}-\d{6}", out)
    assert (inputs / out / "metrics.parquet").exists()


def test_a_comparison_that_cannot_be_tracked_is_made_all_the_same(inputs):
    done = call("compare", "tiny.yaml", *FAST, "--out", "out")
    assert done.code == 0
    assert "nothing is tracked" in done.err
    assert (inputs / "out" / "metrics.parquet").exists()


# Train, recommend, embed, evaluate.


def test_train_says_what_it_made_of_what(folder):
    _, _, done = folder
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("vae: MultVAE(hidden=(8,), latent=4,")
    card = load_model(folder[0] / "vae").card
    assert f"trained on {card.data.users} users, {card.data.items} items and {card.data.interactions} inter" in done.out
    assert "note: 2 users with fewer than 5 items (min_items): left out" in done.out
    assert f"note: {len(log())} events have values that are not looked at: each counts the same" in done.out
    assert "note: 58 users to train on fit into one batch (batch_size 500): one update an epoch" in done.out


def test_train_without_a_model_trains_the_default_one_and_keeps_users_to_weigh_it_by(inputs):
    small = [word for setting in ("hidden=8", "layers=1", "latent=4", "epochs=2") for word in ("--set", setting)]
    done = call("train", "log.csv", "--out", "model", *small)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("model: Hybrid(deep=None, hidden=8, layers=1, latent=4,")
    assert "note: 6 users kept from training, to stop early by" in done.out
    assert load_model(Path("model")).card.data.users == USERS - 2 - 6
    whole = call("train", "default", "log.csv", "--out", "whole", "--validation-share", 0, *small)
    assert (whole.code, whole.err) == (0, "")
    assert load_model(Path("whole")).card.data.users == USERS - 2
    assert call("recommend", "model", "log.csv", "-n", 3, "--out", "top.parquet").code == 0
    assert call("embed", "model", "log.csv", "--out", "users.parquet").code == 0
    refused = call("embed", "model", "log.csv", "--kind", "retrieval", "--out", "retrieval.parquet")
    assert refused.code == 2
    assert "hybrid has no retrieval vectors" in refused.err
    for kind in ([], ["--kind", "latent"]):
        refused = call("embed", "model", "--items", *kind, "--out", "items.parquet")
        assert (refused.code, told(refused).split(":")[0]) == (2, "hybrid has no vectors of items; these models have")


def test_train_counts_the_items_that_only_users_kept_from_training_have(inputs):
    own = (
        log().query("user_id > 'u05'").drop_duplicates("user_id").assign(item_id=lambda table: "of " + table["user_id"])
    )
    pd.concat([log(), own]).to_csv("log.csv", index=False)
    done = call("train", "mult-vae", "log.csv", "--out", "model", "--validation-share", 0.1, *SMALL)
    assert done.code == 0
    gone = log()["item_id"].nunique() + len(own) - load_model(Path("model")).card.data.items
    assert gone > 0
    assert f"note: {gone} items that only these users have: unknown to the model" in done.out
    whole = call("train", "mult-vae", "log.csv", "--out", "whole", "--min-items", 1, *SMALL)
    assert "unknown to the model" not in whole.out


def test_recommend_writes_the_best_items_of_everybody(inside, tmp_path):
    done = call("recommend", "vae", "log.csv", "-n", 5, "--out", tmp_path / "top.parquet")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{tmp_path}/top.parquet: {5 * USERS} rows\n"
    table = read(tmp_path / "top.parquet")
    assert table.columns.tolist() == ["user_id", "item_id", "rank", "score", "title"]
    assert table.equals(table.sort_values(["user_id", "rank"], ignore_index=True))
    seen = set(zip(log()["user_id"], log()["item_id"], strict=True))
    assert not seen & set(zip(table["user_id"], table["item_id"], strict=True))
    again = call(
        "recommend", "vae", "log.csv", "-n", 5, "--keep-seen", "--out", tmp_path / "top.parquet", "--overwrite"
    )
    assert again.code == 0
    table = read(tmp_path / "top.parquet")
    assert seen & set(zip(table["user_id"], table["item_id"], strict=True))


def test_embed_writes_vectors_whose_product_is_the_score(inside, tmp_path):
    users, items, top = (tmp_path / f"{name}.parquet" for name in ("users", "items", "top"))
    assert call("embed", "vae", "log.csv", "--kind", "retrieval", "--out", users).code == 0
    assert call("embed", "vae", "--items", "--out", items).code == 0
    assert call("recommend", "vae", "log.csv", "-n", 3, "--out", top).code == 0
    vectors = {
        column: read(file).set_index(column)["embedding"] for column, file in (("user_id", users), ("item_id", items))
    }
    assert len(vectors["item_id"]) == ITEMS
    for row in read(top).itertuples():
        product = float(vectors["user_id"][row.user_id] @ vectors["item_id"][row.item_id])
        assert product == pytest.approx(row.score, rel=1e-4, abs=1e-5)
    latent = call("embed", "vae", "log.csv", "--out", tmp_path / "latent.parquet")
    assert latent.out == f"{tmp_path}/latent.parquet: {USERS} rows\n"
    assert pq.read_schema(tmp_path / "latent.parquet").field("embedding").type == pa.list_(pa.float32(), 4)
    assert about(tmp_path / "latent.parquet")["kind"] == "latent"


def test_evaluate_says_the_figures_of_a_model(inside):
    done = call("evaluate", "vae", "log.csv", "--metrics", "recall@3, ndcg@10,coverage@5")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines() if "@" in line] == ["recall@3", "ndcg@10", "coverage@5"]
    one, other = (call("evaluate", "vae", "log.csv", "--seed", seed, "--json").out for seed in (1, 2))
    assert json.loads(one)["metrics"] != json.loads(other)["metrics"]


def test_a_model_that_learned_from_values_is_asked_for_them_first(inside, tmp_path):
    values = ["--set", "likelihood=gaussian", "--set", "unseen=0", "--values", "keep"]
    assert call("train", "autoencoder", "log.csv", *SMALL, *values, "--out", tmp_path / "ratings").code == 0
    done = call("evaluate", tmp_path / "ratings", "log.csv", "--json")
    assert [row["metric"] for row in json.loads(done.out)["metrics"]] == ["rmse", "ndcg", "recall", "recall", "mrr"]


def test_evaluate_says_the_figures_of_anybodys_file(inside, tmp_path):
    held_out = pd.DataFrame({"who": ["ann", "ann", "bob", "cy"], "what": [1, 2, 3, 4]})
    held_out.to_csv(tmp_path / "held_out.csv", index=False)
    offered = pd.DataFrame({"who": ["ann"] * 3 + ["bob"], "what": [9, 2, 1, 5], "score": [3.0, 2.0, 1.0, 1.0]})
    offered.to_csv(tmp_path / "theirs.csv", index=False)
    words = ["--recommendations", tmp_path / "theirs.csv", "--held-out", tmp_path / "held_out.csv"]
    columns = ["--user-col", "who", "--item-col", "what"]
    done = call("evaluate", *words, *columns, "--metrics", "recall@2,mrr@10", "--json")
    assert done.code == 0
    figures = {f"{row['metric']}@{row['k']}": row["value"] for row in json.loads(done.out)["metrics"]}
    # By hand: ann finds one of two in two places, the first in place 2; bob and cy find nothing.
    assert figures == {"recall@2": pytest.approx(0.5 / 3), "mrr@10": pytest.approx(0.5 / 3)}
    said = call("evaluate", *words, *columns).out
    assert "note: 1 user with held-out items, but without recommendations: they count as misses" in said


def test_figures_of_lists_that_are_too_short_for_them_are_told(inside, tmp_path):
    held_out = tmp_path / "held_out.csv"
    pd.DataFrame({"user_id": ["ann", "bob"], "item_id": ["i1", "i2"]}).to_csv(held_out, index=False)
    places = pd.DataFrame({"user_id": ["ann"] * 3 + ["bob"] * 2, "rank": [1, 2, 3, 1, 2]})
    for name, rows in (("both", places), ("ann", places[:3])):
        path = tmp_path / f"{name}.csv"
        rows.assign(item_id=[f"i{number}" for number in range(len(rows))]).to_csv(path, index=False)
        words = ["evaluate", "--recommendations", path, "--held-out", held_out, "--metrics"]
        said = {metrics: call(*words, metrics).out for metrics in ("recall@2", "recall@2,recall@3", "recall@5,ndcg@4")}
        assert "too short" not in said["recall@2"]
        both = name == "both"
        assert ("1 user has a list too short for recall@3, 2 long" in said["recall@2,recall@3"]) == both
        users, length = ("2 users have", "2 to 3") if both else ("1 user has", "3")
        wanted = f"note: {users} a list too short for recall@5, ndcg@4, {length} long: its missing places count as miss"
        assert wanted in " ".join(said["recall@5,ndcg@4"].split())


def test_the_comparisons_own_file_has_the_figures_it_printed(inside, tmp_path):
    from recae import experiment
    from recae.recipe import read_recipe

    held_out = experiment.read_split(read_recipe(inside / "tiny.yaml")).test.held_out
    row, column = held_out.matrix.nonzero()
    pairs = pd.DataFrame({"user_id": held_out.users.ids[row], "item_id": held_out.items.ids[column]})
    pairs.to_parquet(tmp_path / "held_out.parquet")
    top = read(inside / "out" / "recommendations.parquet")
    top[top["model"] == "ease"].to_parquet(tmp_path / "ease.parquet")
    words = ["--recommendations", tmp_path / "ease.parquet", "--held-out", tmp_path / "held_out.parquet"]
    done = call("evaluate", *words, "--metrics", "ndcg@10,recall@5", "--json")
    metrics = read(inside / "out" / "metrics.parquet").query("model == 'ease' and metric != 'coverage'")
    for row, printed in zip(metrics.to_dict("records"), json.loads(done.out)["metrics"], strict=True):
        assert {**printed, "model": "ease"} == row


# What all commands have.


def spoken(inside: Path, tmp_path: Path) -> list[list[object]]:
    """Return a working call of every command that does something."""
    return [
        ["compare", "tiny.yaml", *FAST, "--out", tmp_path / "out"],
        ["train", "ease", "log.csv", "--out", tmp_path / "model"],
        ["recommend", "vae", "log.csv", "--out", tmp_path / "top.parquet"],
        ["embed", "vae", "log.csv", "--out", tmp_path / "users.parquet"],
        ["evaluate", "vae", "log.csv"],
    ]


def test_json_is_json_and_nothing_else(inside, tmp_path):
    results = [json.loads(call(*words, "--json").out) for words in spoken(inside, tmp_path)]
    compared, trained, recommended, embedded, evaluated = results
    assert [row["k"] for row in compared["metrics"]] == [10, 5, 5]
    assert compared["metrics"][2]["ci_low"] is None
    assert compared["notes"]
    assert (trained["model"], trained["data"]["users"]) == ("ease", 58)
    assert (recommended["rows"], recommended["out"]) == (USERS * ITEMS - len(log()), f"{tmp_path}/top.parquet")
    assert embedded["rows"] == USERS
    assert {row["metric"] for row in evaluated["metrics"]} == {"ndcg", "recall", "mrr"}
    described = json.loads(call("data", "describe", "log.csv", "--json").out)
    assert (described["users"], described["items"], described["counts"]["events"]) == (USERS, ITEMS, len(log()))
    assert json.loads(call("doctor", "--json").out)["python"].startswith("3.")
    assert {one["name"] for one in json.loads(call("data", "list", "--json").out)} >= {"ml-1m", "ml-latest-small"}


def test_quiet_is_quiet(inside, tmp_path, monkeypatch, folder):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for words in spoken(inside, tmp_path):
        assert call(*words, "--quiet") == Done(0, "", "")


def test_a_model_that_diverged_is_no_mistake_of_the_users_input(inside, tmp_path):
    done = call("train", "mult-vae", "log.csv", "--out", tmp_path / "model", *SMALL, "--set", "learning_rate=1e30")
    assert done.code == 1
    assert told(done).startswith("mult-vae: loss or weights are not finite in epoch 2; lower learning_rate")
    assert list(tmp_path.iterdir()) == []


# Data and doctor.


def test_data_list_shows_every_set_with_its_terms():
    done = call("data", "list")
    assert (done.code, done.err) == (0, "")
    assert "ml-20m           20,000,263 events, 138,493 users, 26,744 items" in done.out
    assert done.out.count("https://") == done.out.count("research only")


def test_data_describe_counts_what_is_in_a_log_and_what_is_not(inside, tmp_path):
    table = pd.concat([log(), log().iloc[:3]])
    table["item_id"] = table["item_id"].mask(np.arange(len(table)) == 10)
    table.to_csv(tmp_path / "log.csv", index=False)
    done = call("data", "describe", tmp_path / "log.csv", "--skip-bad-rows", "--min-value", 2, "--min-items", 2)
    assert (done.code, done.err) == (0, "")
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in done.out.splitlines() if "  " in line)
    assert facts["rows read"] == str(len(table))
    assert facts["users"] == str(USERS)
    assert facts["values"] == "2 to 5"
    assert facts["times"].startswith("20")
    assert "note: 1 row with an empty item id: skipped" in done.out
    assert "events below min_value: left out" in done.out
    assert "repeated event of one user with one item: merged" in done.out
    assert not re.search(r"[{}()]", done.out.replace(facts["times"], ""))


def test_doctor_tells_versions_and_devices():
    done = call("doctor")
    assert (done.code, done.err) == (0, "")
    for name in ("python", "torch", "implicit", "mlflow", "gpu", "disk free here", "tracking store"):
        assert re.search(rf"^{name}  +\S", done.out, re.MULTILINE)


# Not errors.

ODD_IDS = {
    "unicode": ["\u00e9", "e\u0301", "日本", "🎬", "ı", "I"],
    "case and blanks": ["A", "a", " a", "a b", "b", "B"],
    "leading zeros": ["7", "07", "007", "0", "00", "70"],
    "up to 2**63": [2**63, 2**63 - 1, 0, 1, 2, 3],
    "negative": [-1, -(2**63), 0, 1, 2, 3],
    "quoted": ["a,b", 'say "hi"', "two\nlines", "a;b", "a\tb", "'"],
}


@pytest.mark.parametrize("kind", ODD_IDS)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ids_come_back_as_they_went_in(kind, suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = ODD_IDS[kind]
    table = pd.DataFrame([(user, item) for user in ids for item in ids if user != item], columns=["user", "item"])
    table.to_csv("log.csv", index=False) if suffix == "csv" else table.to_parquet("log.parquet")
    assert call("train", "ease", f"log.{suffix}", "--out", "model").err == ""
    done = call("recommend", "model", f"log.{suffix}", "-n", 100, "--out", "top.parquet")
    assert (done.code, done.err) == (0, "")
    top = read(Path("top.parquet"))
    assert sorted(top["user_id"]) == sorted(ids)
    assert top["user_id"].tolist() == top["item_id"].tolist()


ODD_FILES = {
    "byte-order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "quoted fields": lambda text: re.sub(r"([^,\n]+)", r'"\1"', text).encode(),
    "no line end at the end": lambda text: text.rstrip("\n").encode(),
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "blank lines": lambda text: text.replace("\n", "\n\n", 3).encode(),
    "duplicates": lambda text: (text + "".join(f"{line}\n" for line in text.splitlines()[1:4])).encode(),
    "negative values": lambda text: re.sub(r",([1-5]),", r",-\1.5,", text).encode(),
    "headers as others spell them": lambda text: text.replace(
        "user_id,item_id,value", "userId,Movie ID,RATING"
    ).encode(),
}


@pytest.mark.parametrize("oddity", ODD_FILES)
def test_files_as_people_have_them_are_read(oddity, inputs):
    Path("log.csv").write_bytes(ODD_FILES[oddity](Path("log.csv").read_text()))
    done = call("data", "describe", "log.csv", "--json")
    assert (done.code, done.err) == (0, "")
    described = json.loads(done.out)
    assert (described["users"], described["items"], described["events"]) == (USERS, ITEMS, len(log()))
    assert described["counts"]["duplicates"] == (3 if oddity == "duplicates" else 0)
    if oddity == "negative values":
        assert described["value_range"] == [-5.5, -1.5]


# Stopped, and resumed.


@pytest.mark.parametrize("quiet", [False, True])
def test_memory_that_runs_short_is_one_line_beside_the_result_or_none(quiet, inputs):
    script = (
        "import recae.autoencoder.likelihoods as home\n"
        "whole = home.multinomial\n"
        "def of_few(features, output, batch, sample):\n"
        "    if len(batch) > 20: raise MemoryError\n"
        "    return whole(features, output, batch, sample)\n"
        "home.multinomial = of_few\n"
        "from recae.cli import main; main()\n"
    )
    words = ["train", "mult-dae", "log.csv", "--set", "latent=4", "--set", "epochs=1", "--out", "dae"]

    words += ["--quiet"] * quiet

    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)

    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "memory" in line]
    assert len(said) == (0 if quiet else 2) and not (quiet and done.stdout + done.stderr)
    assert all(re.match(r"note: mult-dae: out of memory; .* users at a time", line) for line in said)
    assert load_model(inputs / "dae").model.name == "mult-dae"


@pytest.fixture
def stop_after(monkeypatch):
    """Press Ctrl-C after so many checkpoints of the next training."""
    save = recae.autoencoder.training.save_checkpoint

    def after(epochs: int) -> None:
        left = iter(range(epochs))

        def save_and_stop(*arguments) -> None:
            if next(left, None) is None:
                monkeypatch.setattr(recae.autoencoder.training, "save_checkpoint", save)
                signal.raise_signal(signal.SIGINT)
            save(*arguments)

        monkeypatch.setattr(recae.autoencoder.training, "save_checkpoint", save_and_stop)

    return after


def advised(done: Done) -> list[str]:
    """Return the command by which, it was told, one can go on."""
    words = shlex.split(told(done).rpartition(": ")[2])
    assert words[0] == "recae"
    return words[1:]


def weights(model: Path) -> bytes:
    return (model / WEIGHTS).read_bytes()


@pytest.mark.parametrize("form", [["--out", "model"], ["--out=model", "--overwrite"]])
def test_ctrl_c_on_train_says_how_to_go_on_and_that_works(form, inputs, stop_after):
    words = ["train", "mult-vae", "log.csv", "--set", "epochs=4", *SMALL[:4], "--seed", "3"]
    assert call(*words, "--out", "whole").code == 0
    stop_after(2)
    done = call(*words, *form)
    assert done.code == 1
    assert "mult-vae: interrupted after 2 of at most 4 epochs; the checkpoint is model.checkpoint; to go on" in done.err
    assert not (inputs / "model").exists()
    blocked = call(*words, "--out", "model")
    assert blocked.code == 2
    assert told(blocked).startswith(
        "model.checkpoint holds a training that was interrupted, or still goes on; wait for it, "
    )
    assert call(*advised(done)).code == 0
    assert weights(inputs / "model") == weights(inputs / "whole")
    assert not (inputs / "model.checkpoint").exists()


def test_ctrl_c_before_anything_is_kept_says_so_too(inputs, stop_after):
    stop_after(0)
    done = call("train", "mult-vae", "log.csv", "--out", "model", *SMALL)
    assert done.code == 1
    assert "in its first epoch; there is no checkpoint yet; to start again: recae train" in done.err
    assert "--resume" not in advised(done)
    assert call(*advised(done)).code == 0


def test_ctrl_c_on_compare_says_how_to_go_on_and_that_works(inputs, inside, stop_after, monkeypatch):
    monkeypatch.chdir(inputs)
    stop_after(1)
    done = call("compare", "tiny.yaml")
    assert done.code == 1
    words = advised(Done(1, "", done.err.splitlines(keepends=True)[-1]))
    assert words[-1] == "--resume"
    assert call(*words).code == 0
    out = next((inputs / "runs" / "tiny").iterdir())
    assert read(out / "metrics.parquet").equals(read(inside / "out" / "metrics.parquet"))


def test_ctrl_c_elsewhere_is_one_line(inside, tmp_path, monkeypatch):
    monkeypatch.setattr(recae.jobs, "top_n", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    done = call("recommend", "vae", "log.csv", "--out", tmp_path / "top.parquet")
    assert (done.code, done.err) == (1, "recae: stopped\n")
    assert list(tmp_path.iterdir()) == []


def refuse_memory(monkeypatch, *, from_call: int) -> None:
    """Let EASE find too little memory, from so many times that it looks."""
    looks = iter(range(1, 1000))

    def require(device, needed, what, instead):
        if next(looks) >= from_call:
            raise ModelError(f"{what} needs 9.9 GB on cpu, and 1.0 GB are available; {instead}")

    monkeypatch.setattr(recae.models.linear, "require_memory", require)


def test_too_little_memory_for_one_model_is_told_before_another_is_fitted(inputs, monkeypatch):
    refuse_memory(monkeypatch, from_call=1)
    monkeypatch.setattr(recae.models.popularity.Popularity, "fit", lambda *_: pytest.fail("a model was fitted"))
    done = call("compare", "tiny.yaml", "--out", "out", "--quiet")
    assert (done.code, done.out) == (2, "")
    assert told(done).startswith(f"models.ease: ease, for the weights between {ITEMS} items, needs 9.9 GB on cpu")
    assert told(done).endswith("or leave it out of the recipe")
    assert not (inputs / "out.partial").exists()


def test_what_stops_a_comparison_later_is_told_with_how_to_go_on_and_that_works(inputs, monkeypatch):
    refuse_memory(monkeypatch, from_call=2)
    done = call("compare", "tiny.yaml", "--out", "out", "--quiet")
    assert done.code == 2
    stopped = Done(2, "", done.err.splitlines(keepends=True)[-1])
    assert "1.0 GB are available; use als" in told(stopped)
    assert "; what is finished is kept, for the same recipe and log; to go on: recae compare" in told(stopped)
    words = advised(stopped)
    monkeypatch.undo()
    monkeypatch.chdir(inputs)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    changed = call(*words, "--set", "models.ease.l2=7")
    assert changed.code == 2
    assert told(changed).startswith("out.partial was begun with another recipe; ")
    monkeypatch.setattr(recae.models.popularity.Popularity, "fit", lambda *_: pytest.fail("fitted again"))
    assert call(*words).code == 0
    assert (inputs / "out" / "metrics.parquet").exists()


LONG = ["--set", "models.mult-vae.epochs=100", "--set", "models.mult-vae.patience=100"]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a training has written its checkpoint, and a little longer."""
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    time.sleep(0.05)


def test_a_comparison_killed_in_the_middle_resumes_to_the_same_results(make_store, tmp_path, monkeypatch):
    inputs = write_inputs(make_store(tmp_path))
    monkeypatch.chdir(inputs)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    process = start("compare", "tiny.yaml", *LONG, "--out", "out", folder=inputs)
    wait_for(inputs / "out.partial" / "checkpoints" / "mult-vae.safetensors", process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (inputs / "out").exists()

    assert call("compare", "tiny.yaml", *LONG, "--out", "whole", "--quiet") == Done(0, "", "")
    blocked = call("compare", "tiny.yaml", *LONG, "--out", "out", "--quiet")
    assert blocked.code == 2
    assert told(blocked).startswith(
        "out.partial holds a run that was interrupted, or still goes on; wait for it, go on "
    )
    assert call("compare", "tiny.yaml", *LONG, "--out", "out", "--resume", "--quiet") == Done(0, "", "")
    for name in ("metrics", "per_user", "recommendations", "comparisons"):
        assert read(inputs / "out" / f"{name}.parquet").equals(read(inputs / "whole" / f"{name}.parquet")), name
    for label in LABELS:
        assert weights(inputs / "out" / "models" / label) == weights(inputs / "whole" / "models" / label)
    card = json.loads((inputs / "out" / "models" / "mult-vae" / CARD).read_text())
    assert len(card["training"]["curve"]) == 100
    assert sorted(path.name for path in inputs.iterdir()) == sorted(
        ["items.csv", "log.csv", "mlflow", "out", "tiny.yaml", "whole"]
    )


def test_a_real_ctrl_c_ends_with_one_line_and_a_command_that_works(inputs, stop_after):
    epochs = ["--set", "hidden=8", "--set", "latent=4", "--set", "epochs=1000"]
    process = start("train", "mult-vae", "log.csv", "--out", "model", *epochs, folder=inputs)
    wait_for(inputs / "model.checkpoint", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    words = advised(Done(1, out, err))
    assert not (inputs / "model").exists()
    # The rest of so many epochs is of no interest here: that it goes on is.
    stop_after(3)
    stopped, again = (
        re.search(r"interrupted after (\d+) of at most 1000 epochs", said) for said in (err, call(*words).err)
    )
    assert again
    # Stopped in the instant between a checkpoint and its being counted, it knows one epoch more than it said: of the
    # first it may have said nothing.
    assert int(again[1]) - (int(stopped[1]) if stopped else 0) in (3, 4)


def test_a_terminal_without_our_signs_gets_others(folder):
    command = [sys.executable, "-c", "from recae.cli import main; main()", "evaluate", "out/models/ease", "log.csv"]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=folder[0], env=plain, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ndcg@100" in done.stdout


def test_another_log_gives_the_experiment_its_name(inputs):
    (inputs / "log.csv").rename(inputs / "my shop, 2026.csv")
    tiny = ["--set", "models={popularity: {}}", "--out", "out"]
    done = call("compare", "tiny.yaml", "--data", "my shop, 2026.csv", *tiny)
    assert done.code == 0, done
    assert yaml.safe_load((inputs / "out" / "recipe.yaml").read_text())["name"] == "my-shop-2026"


def test_resume_without_anything_to_resume_is_told(inputs):
    done = call("train", "mult-vae", "log.csv", "--out", "model", "--resume")
    assert done.code == 2
    assert told(done).startswith("model.checkpoint: there is no interrupted training to resume; leave out --resume")
    done = call("compare", "tiny.yaml", "--out", "out", "--resume", "--quiet")
    assert done.code == 2
    assert told(done).startswith("out.partial: there is no interrupted run to resume; leave out --resume")
    done = call("compare", "tiny.yaml", "--resume")
    assert done.code == 2
    assert told(done).startswith("--resume: say with --out which run")
