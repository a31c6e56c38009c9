"""What reaches MLflow, what it serves, and that its failures stay away from the experiment."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from checkerboard import checkerboard
from mlflow import MlflowClient

import recae.tracking.tracker
from recae.artifact import load_model, save_model
from recae.errors import Interrupted
from recae.interactions import IdMap, Interactions
from recae.models import build
from recae.ranking import top_n
from recae.tables import recommendations
from recae.tracking import Tracker

STRINGS, INTEGERS = tuple(f"i{number:02}" for number in range(12)), tuple(range(70, 82))
BEYOND_LONG = tuple(2**63 + number for number in range(12))


def model_directory(path: Path, item_ids=STRINGS, titles: bool = True) -> Path:
    matrix = checkerboard().history
    table = pd.DataFrame({"title": [f"Film {number}" for number in range(12)]} if titles else {}, index=range(12))
    interactions = Interactions(matrix, IdMap.of(range(12)), IdMap.of(item_ids), table)
    save_model(path, build("ease").fit(matrix), interactions, seed=1)
    return path


def test_the_first_use_makes_a_store_in_the_folder_and_says_nothing(first_use):
    folder, done = first_use
    assert done.stderr == ""
    assert done.stdout.strip() == f"'' sqlite:///{folder}/mlflow/mlflow.db"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == ["mlflow", "mlflow/mlflow.db"]


TOGETHER = """
import sys, time
from pathlib import Path
from recae.tracking import Tracker
Path(sys.argv[1]).touch()
while not Path("go").exists():
    time.sleep(0.001)
tracker = Tracker("together")
with tracker.run(sys.argv[1]) as run:
    run.figures({"ndcg_at_100": 0.5})
print(repr(tracker.lost), tracker.experiment_id)
"""


def test_two_first_uses_at_once_are_both_tracked(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, name], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "other")
    ]
    until = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    told = [process.communicate(timeout=120)[0] for process in both]
    assert told[0] == told[1]
    assert told[0].startswith("'' ")
    assert [path.name for path in (tmp_path / "mlflow").iterdir()] == ["mlflow.db"]
    with closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as store:
        runs = store.execute("SELECT name, status FROM runs ORDER BY name").fetchall()
    assert runs == [("one", "FINISHED"), ("other", "FINISHED")]


def test_an_experiment_that_another_process_makes_in_the_meantime_is_shared(here, monkeypatch):
    first = Tracker("shared")
    look_up, answers_given = MlflowClient.get_experiment_by_name, iter([None])
    monkeypatch.setattr(
        MlflowClient, "get_experiment_by_name", lambda self, name: next(answers_given, look_up(self, name))
    )
    second = Tracker("shared")
    assert (second.lost, second.experiment_id) == ("", first.experiment_id)


def test_a_process_that_keeps_the_store_to_itself_is_waited_for_but_not_forever(here, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="this system has no such locks")
    monkeypatch.setattr(recae.tracking.tracker, "PATIENCE", 0.3)
    keeper = os.open(here / "mlflow", os.O_RDONLY)
    fcntl.flock(keeper, fcntl.LOCK_EX)
    try:
        started = time.monotonic()
        assert Tracker("patient").lost == ""
        assert time.monotonic() - started > 0.3
    finally:
        os.close(keeper)


def test_a_run_holds_what_it_was_told(here):
    (here / "report.html").write_text("<html>")
    (here / "tables").mkdir()
    (here / "tables" / "metrics.parquet").write_text("PAR1")
    tracker = Tracker("films")
    with tracker.run("all") as parent:
        parent.dataset("d" * 64, name="ml", source="/data/ml.zip", profile={"users": 12})
        parent.artifact(here / "report.html")
        parent.artifact(here / "tables")
        with tracker.run("mult-vae", parent=parent) as child:
            child.parameters({"hidden": (600,), "dropout": 0.5, **{f"p{number}": number for number in range(150)}})
            child.tags({"kind": "test"})
            child.curve([{"loss": 3.0, "ndcg_at_100": 0.1}, {"loss": 2.0, "ndcg_at_100": float("nan")}])
            child.figures({"ndcg_at_100": 0.4, "ndcg_at_100_ci_low": 0.3, "nothing": float("nan"), "far": float("inf")})
    assert tracker.lost == ""

    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name("films")
    assert experiment.artifact_location == (here / "mlflow" / "artifacts").as_uri()
    kept = client.get_run(child.id)
    assert kept.info.status == client.get_run(parent.id).info.status == "FINISHED"
    assert kept.data.tags["mlflow.parentRunId"] == parent.id
    assert kept.data.tags["mlflow.runName"] == "mult-vae"
    assert kept.data.tags["kind"] == "test"
    assert {"system.python", "system.torch", "system.recae", "system.cpus"} < kept.data.tags.keys()
    assert len(kept.data.params) == 152
    assert kept.data.params["hidden"] == "(600,)"
    assert kept.data.metrics == {
        "ndcg_at_100": 0.4,
        "ndcg_at_100_ci_low": 0.3,
        "training/loss": 2.0,
        "training/ndcg_at_100": 0.1,
    }
    losses = client.get_metric_history(child.id, "training/loss")
    assert [(point.step, point.value) for point in losses] == [(1, 3.0), (2, 2.0)]
    data = client.get_run(parent.id).inputs.dataset_inputs[0]
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("ml", "d" * 36, "training")
    assert json.loads(data.dataset.profile) == {"digest": "d" * 64, "users": 12}
    assert [file.path for file in client.list_artifacts(parent.id)] == ["report.html", "tables"]
    assert not (here / "mlruns").exists()


def test_a_long_training_is_few_calls_and_every_step(here):
    tracker = Tracker("long")
    with tracker.run("one") as run:
        run.curve([{"epoch": epoch, "loss": 1 / epoch, "kl_weight": 0.2} for epoch in range(5, 1205)])
    assert tracker.lost == ""
    steps = [point.step for point in MlflowClient(tracker.uri).get_metric_history(run.id, "training/loss")]
    assert sorted(steps) == list(range(5, 1205))


def test_the_code_is_known_by_its_commit(here):
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    tracker = Tracker("code")
    with tracker.run("one") as run:
        pass
    tags = MlflowClient(tracker.uri).get_run(run.id).data.tags
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == (commit, "false")


@pytest.mark.parametrize("name", ["a b", "50%41", "ü", "why?", "#1"])
def test_the_folder_may_have_any_name(name, here, monkeypatch):
    (here / name).mkdir()
    shutil.move(here / "mlflow", here / name / "mlflow")
    monkeypatch.chdir(here / name)
    tracker = Tracker("names")
    with tracker.run("one") as run:
        (here / "file.txt").write_text("x")
        run.artifact(here / "file.txt")
    assert tracker.lost == ""
    assert (here / name / "mlflow" / "artifacts" / run.id / "artifacts" / "file.txt").exists()


def test_the_users_own_store_is_obeyed(here, monkeypatch):
    shutil.move(here / "mlflow" / "mlflow.db", here / "own.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/own.db")
    tracker = Tracker("own")
    with tracker.run("one") as run:
        pass
    assert tracker.lost == ""
    assert MlflowClient(f"sqlite:///{here}/own.db").get_run(run.id).info.run_name == "one"
    assert not (here / "mlflow" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("wrong"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (Interrupted("on request"), "KILLED")],
)
def test_a_run_that_ends_badly_says_so(error, status, here):
    tracker = Tracker("ends")
    with pytest.raises(type(error)), tracker.run("parent") as parent, tracker.run("child", parent=parent) as child:
        raise error
    client = MlflowClient(tracker.uri)
    assert [client.get_run(run.id).info.status for run in (parent, child)] == [status, status]


# The model, as MLflow keeps and serves it.

PREDICT = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
for histories, params in json.loads(sys.argv[3]):
    print(model.predict(pd.DataFrame({"history": histories}), params).to_json(orient="split"))
"""


def predictions(tracker: Tracker, run_id: str, *questions) -> list[pd.DataFrame]:
    """Ask the logged model in a fresh process, elsewhere, that may not unpickle anything."""
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, tracker.uri, f"runs:/{run_id}/model", json.dumps(questions)],
        env=os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [pd.DataFrame(**json.loads(line)) for line in done.stdout.splitlines()]


def test_the_logged_model_recommends_what_the_model_does(here):
    directory = model_directory(here / "model")
    tracker = Tracker("served")
    with tracker.run("ease") as run:
        run.model(directory)
    assert tracker.lost == ""
    shutil.rmtree(directory)

    histories = [["i00", "i02", "i04"], ["stranger"], ["i01", "stranger", "i01"], []]
    lists, one, none = predictions(tracker, run.id, (histories, None), (histories[:1], {"n": 1}), ([], None))
    fitted = load_model(model_directory(here / "again"))
    known = fitted.histories([histories[0], histories[2]])
    expected = recommendations(
        top_n(fitted.model.score, known, 10), IdMap(pd.Index([0, 2])), fitted.items, fitted.item_table
    ).to_pandas()
    pd.testing.assert_frame_equal(lists, expected.rename(columns={"user_id": "user_row"}), check_dtype=False, rtol=1e-6)
    assert lists.columns.tolist() == ["user_row", "item_id", "rank", "score", "title"]
    assert one["item_id"].tolist() == lists["item_id"].tolist()[:1]
    assert len(none) == 0


def served_by(tracker: Tracker, folder: Path) -> Any:
    """Log a model of a directory's and load it in this process."""
    with tracker.run("ease") as run:
        run.model(folder)
    assert tracker.lost == ""
    logged = Path("mlflow/artifacts/models").glob("*/artifacts")
    return mlflow.pyfunc.load_model(str(max(logged, key=lambda folder: folder.stat().st_mtime_ns)))


@pytest.mark.parametrize(("item_ids", "spelled"), [(INTEGERS, int), (BEYOND_LONG, str)])
def test_integer_ids_are_served_as_what_mlflow_can_hold(item_ids, spelled, here):
    model = served_by(Tracker("integers"), model_directory(here / "model", item_ids, titles=False))
    table = model.predict(pd.DataFrame({"history": [[spelled(item_ids[0]), spelled(item_ids[2])]]}), {"n": 4})
    assert table.columns.tolist() == ["user_row", "item_id", "rank", "score"]
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert sorted(table["item_id"].tolist()) == [item_ids[number] for number in (4, 6, 8, 10)]


def test_histories_of_strangers_alone_are_a_mistake(here):
    model = served_by(Tracker("strangers"), model_directory(here / "model"))
    with pytest.raises(Exception, match="none of the 2 histories has an item that the model knows"):
        model.predict(pd.DataFrame({"history": [["x"], ["y"]]}))
    model = served_by(Tracker("integers"), model_directory(here / "integers", INTEGERS))
    with pytest.raises(Exception, match=r"its ids look like 70$"):
        model.predict(pd.DataFrame({"history": [[1], [2]]}))


def test_fewer_than_one_recommendation_is_a_mistake(here):
    model = served_by(Tracker("none"), model_directory(here / "model"))
    with pytest.raises(Exception, match="at least 1"):
        model.predict(pd.DataFrame({"history": [["i01"]]}), {"n": 0})


def test_the_logged_model_names_no_folder_of_this_machine_and_holds_no_pickle(here):
    served_by(Tracker("clean"), model_directory(here / "model"))
    served = next((here / "mlflow" / "artifacts" / "models").glob("*/artifacts"))
    files = [path for path in served.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"MLmodel", "served.py", "model.json", "weights.safetensors"}
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pyc", ".lock")]
    package = str(Path(__file__).parents[1])
    for path in files:
        assert str(here).encode() not in path.read_bytes(), path
        assert package.encode() not in path.read_bytes(), path
    assert "recae" in (served / "requirements.txt").read_text()


# MLflow's failures.


def work_through(tracker: Tracker, directory: Path) -> str:
    """Do what an experiment does, to its end."""
    with tracker.run("parent") as parent:
        parent.dataset("d", name="n", source="s")
        with tracker.run("child", parent=parent) as child:
            child.parameters({"l2": 1.0})
            child.curve([{"loss": 1.0}])
            child.figures({"ndcg_at_100": 0.5})
            child.model(directory)
            child.artifact(directory, "saved")
    return "finished"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_server_that_was_never_there_costs_one_line(here, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = free_port()
    tracker = Tracker("nobody", uri=f"http://user:secret@127.0.0.1:{port}")
    at_the_start = tracker.lost
    assert at_the_start == (
        f"MLflow at http://127.0.0.1:{port} failed (Connection refused): from the start on, nothing is tracked; "
        "mend it, or set MLFLOW_TRACKING_URI to another"
    )
    assert work_through(tracker, here) == "finished"
    assert tracker.lost == at_the_start
    assert capfd.readouterr() == ("", "")


def test_a_server_that_keeps_silent_is_given_up(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        tracker = Tracker("silent", uri=f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert "(no answer in time)" in tracker.lost


@pytest.mark.parametrize("spoil", ["no database", "no folder", "a file store"])
def test_a_store_that_cannot_be_used_is_told_at_once(spoil, here, monkeypatch):
    if spoil == "no database":
        (here / "mlflow" / "mlflow.db").write_text("something else, long enough to be looked at" * 9)
    elif spoil == "no folder":
        shutil.rmtree(here / "mlflow")
        (here / "mlflow").write_text("")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", (here / "mlruns").as_uri())
    started = time.monotonic()
    tracker = Tracker("spoilt")
    assert time.monotonic() - started < 5
    assert tracker.lost.startswith(f"MLflow at {'file' if spoil == 'a file store' else 'sqlite'}:///")
    assert "\n" not in tracker.lost
    assert work_through(tracker, here) == "finished"


def test_a_failure_of_one_thing_is_named(here):
    tracker = Tracker("partly")
    with tracker.run("parent") as parent:
        parent.figures({"ndcg@100": 0.5})
        parent.tags({"later": "never"})
    assert "from figures of run 'parent' on, nothing is tracked" in tracker.lost
    assert "later" not in MlflowClient(tracker.uri).get_run(parent.id).data.tags


@contextmanager
def server(folder: Path, port: int):
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            until = time.monotonic() + 120
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None and time.monotonic() < until, (folder / "server.log").read_text()
                time.sleep(0.1)
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def test_a_real_server_tracks_all_of_it_and_may_die_in_the_middle(here, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    directory = model_directory(here / "model")
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with server(here, port) as process:
        whole = Tracker("whole")
        assert work_through(whole, directory) == "finished"
        assert whole.lost == ""
        client = MlflowClient(f"http://127.0.0.1:{port}")
        runs = client.search_runs([whole.experiment_id])
        assert {run.info.run_name: run.info.status for run in runs} == {"parent": "FINISHED", "child": "FINISHED"}
        child = next(run for run in runs if run.info.run_name == "child")
        assert child.data.metrics == {"ndcg_at_100": 0.5, "training/loss": 1.0}
        kept = client.list_artifacts(child.info.run_id, "saved/model")
        assert [Path(file.path).name for file in kept] == ["items.parquet", "model.json", "weights.safetensors"]
        mlflow.set_tracking_uri(whole.uri)
        model = mlflow.pyfunc.load_model(f"runs:/{child.info.run_id}/model")
        assert len(model.predict(pd.DataFrame({"history": [["i00", "i02"]]}), {"n": 3})) == 3

        halved = Tracker("halved")
        started = None
        with halved.run("parent") as parent:
            parent.figures({"before": 1.0})
            kill(process)
            started = time.monotonic()
            with halved.run("child", parent=parent) as child_run:
                child_run.figures({"after": 1.0})
                child_run.model(directory)
            results = np.ones(3)
        assert results.sum() == 3
        # A connection kept open since the last request is reset by the death; a new one is refused.
        reason = "Connection (refused|reset by peer)"
        assert re.search(rf"failed \({reason}\): from run 'child' on, nothing is tracked", halved.lost)
        assert time.monotonic() - started < 30
    assert capfd.readouterr() == ("", "")
