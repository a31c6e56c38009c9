"""A search tries what the ranges allow, never looks at the test fold, ends above the recipe, and survives any stop."""

import errno
import json
import logging
import os
import pickle
import signal
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import call, start, write_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from pages import require_sound

from recae import experiment, tuning
from recae.errors import DiskFull, Diverged, Interrupted, ModelError, OutputError, RecipeError
from recae.models.ease import EASE
from recae.models.mult_vae import MultVAE
from recae.ranges import Choices, Span
from recae.recipe import read_recipe
from recae.search import Trial, propose, warm_up
from recae.tracking import Tracker

TUNE = """
tune:
  ease: {l2: {low: 0.1, high: 1000, log: true}}
  mult-vae:
    learning_rate: {low: 1e-4, high: 1e-1, log: true}
    latent: {low: 2, high: 9}
    hidden: [[4], [8], [8, 6]]
"""
COLUMNS = ["model", "trial", "state", "metric", "value", "best_epoch", "seconds", "settings", "reason", "curve"]


def untracked(name: str) -> Tracker:
    """Return a tracker that has given up: the quickest there is."""
    return Tracker(name, uri="nowhere://")


def with_ranges(folder: Path) -> Path:
    path = write_inputs(folder) / "tiny.yaml"
    path.write_text(path.read_text(encoding="utf-8") + TUNE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(make_store, tmp_path_factory):
    """A folder where a search ran to its end, and what it found; nobody changes what is in it."""
    folder = make_store(tmp_path_factory.mktemp("tuning"))
    recipe = read_recipe(with_ranges(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return folder, tuning.tune(recipe, folder / "out", trials=12)


@pytest.fixture
def inputs(tmp_path) -> Path:
    return with_ranges(tmp_path).parent


def search(folder: Path, trials: int, overrides=None, **options) -> tuning.Search:
    recipe = read_recipe(folder / "tiny.yaml", overrides)
    return tuning.tune(recipe, folder / "out", trials=trials, open_tracker=untracked, **options)


def told(out: Path, label: str | None = None) -> pd.DataFrame:
    """Return what a search wrote of its trials, of all or of a label's, but for what a clock says."""
    table = pq.read_table(out / "trials.parquet").to_pandas().drop(columns="seconds")
    return table if label is None else table[table["model"] == label]


# What it leaves.


def test_it_leaves_exactly_what_it_promises(whole):
    folder, found = whole
    files = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    trials = {f"trials/{label}/{number:05}.json" for label in ("ease", "mult-vae") for number in range(12)}
    assert files == {"recipe.yaml", "best.yaml", "trials.parquet", "tune.html", "trials/.split", "trials/.run"} | trials
    assert {path.name for path in folder.iterdir()} == {"items.csv", "log.csv", "mlflow", "out", "tiny.yaml"}
    table = pq.read_table(folder / "out" / "trials.parquet").to_pandas()
    assert table.columns.tolist() == COLUMNS
    assert table["model"].value_counts().to_dict() == {"ease": 12, "mult-vae": 12}
    assert found.caveats == ()


def test_the_first_trial_is_the_recipe_and_no_search_ends_below_it(whole):
    folder, found = whole
    own = read_recipe(folder / "tiny.yaml").build_models()["mult-vae"]
    first = found.trials["mult-vae"][0]
    assert first.settings == {"learning_rate": own.learning_rate, "latent": 4, "hidden": [8]}
    for label, trials in found.trials.items():
        assert found.best(label).value == max(trial.value for trial in trials) >= trials[0].value


def test_settings_lie_in_their_ranges_and_whole_numbers_stay_whole(whole):
    settings = [trial.settings for trial in whole[1].trials["mult-vae"]]
    assert all(type(one["latent"]) is int and 2 <= one["latent"] <= 9 for one in settings)
    assert all(1e-4 <= one["learning_rate"] <= 1e-1 for one in settings)
    assert {tuple(one["hidden"]) for one in settings} == {(4,), (8,), (8, 6)}
    assert len({json.dumps(one) for one in settings}) == 12


def test_a_trial_says_what_its_training_showed(whole):
    for trial in whole[1].trials["mult-vae"]:
        assert 1 <= len(trial.curve) <= 3
        assert trial.value == max(trial.curve) == trial.curve[trial.best_epoch - 1]
    assert {(trial.best_epoch, *trial.curve) for trial in whole[1].trials["ease"]} == {(None,)}


def test_the_best_settings_are_a_recipe_that_gives_what_was_found(whole, tmp_path):
    folder, found = whole
    best = read_recipe(folder / "out" / "best.yaml")
    assert list(best.models) == ["popularity", "ease", "mult-vae"]
    assert best.build_models()["ease"].l2 == found.best("ease").settings["l2"]
    assert best.read_ranges() == read_recipe(folder / "tiny.yaml").read_ranges()
    again = tuning.tune(best, tmp_path / "again", trials=1, open_tracker=untracked)
    assert [again.best(label).value for label in found.trials] == [found.best(label).value for label in found.trials]
    compared = experiment.run(best, tmp_path / "compared", open_tracker=untracked)
    assert set(compared.metrics["model"]) == set(best.models)


def test_its_page_tells_what_was_found(whole):
    folder, found = whole
    page = require_sound((folder / "out" / "tune.html").read_text(encoding="utf-8"))
    assert "24 settings of 2 models tried" in page.text
    labels = [str(svg["aria-label"]) for svg in page.named("svg") if svg.get("role") == "img"]
    for label in found.trials:
        best = found.best(label)
        assert f"12 trials; the best is trial {best.number} with {best.value:.4f}" in labels
    assert len(labels) == (1 + 1) + (1 + 3 + 1)  # trials; a setting each; and the curves of the one that has epochs
    assert "test users" not in page.text.split("How it was made")[-1]
    assert (folder / "out" / "best.yaml").read_text(encoding="utf-8").split("\n", 1)[1].split() == (
        page.text.split("The recipe with the best settings, resolved ")[1].split()
    )


def test_mlflow_has_a_run_for_the_search_and_one_for_each_trial(whole):
    found = whole[1]
    assert found.tracker.lost == ""
    client = MlflowClient(found.tracker.uri)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    parent = by_name.pop("tune tiny")
    assert set(by_name) == {f"{label} {number}" for label in ("ease", "mult-vae") for number in range(12)}
    assert {run.data.tags["mlflow.parentRunId"] for run in by_name.values()} == {parent.info.run_id}
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "best.yaml",
        "recipe.yaml",
        "trials.parquet",
        "tune.html",
    }
    for trial in found.trials["mult-vae"]:
        run = by_name[f"mult-vae {trial.number}"]
        assert run.data.tags["state"] == trial.state
        assert run.data.params["latent"] == str(trial.settings["latent"])
        assert run.data.params["kl_anneal_steps"] == "20"
        assert run.data.metrics["validation_ndcg_at_10"] == trial.value
        points = client.get_metric_history(run.info.run_id, "training/ndcg_at_10")
        assert [point.value for point in points] == trial.curve


# What it must not look at.


def test_the_test_fold_is_never_looked_at(inputs, whole, monkeypatch):
    class Poison:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"the test fold was asked for its {name}")

    read = experiment.read_split

    def poisoned(recipe):
        split = read(recipe)
        object.__setattr__(split, "test", Poison())
        return split

    monkeypatch.setattr(tuning, "read_split", poisoned)
    found = search(inputs, 3)
    assert [one.value for one in found.trials["ease"]] == [one.value for one in whole[1].trials["ease"][:3]]


def test_a_model_that_cannot_fold_in_sees_the_validation_histories_and_nothing_held_out(inputs):
    ranges = {"models": {"bpr": {"factors": 4, "iterations": 2}}, "tune": {"bpr": {"factors": [4, 6]}}}
    found = search(inputs, 3, ranges)
    assert [one.state for one in found.trials["bpr"]] == ["complete"] * 2
    assert "bpr cannot fold in a new user: it was trained on the validation histories as well" in found.caveats


# How it goes on.


def test_more_trials_of_a_finished_search_are_those_of_a_longer_one(inputs, whole):
    search(inputs, 2, labels=["ease"])
    with pytest.raises(OutputError, match="exists already"):
        search(inputs, 3)
    with pytest.raises(OutputError, match="was begun with another recipe"):
        search(inputs, 3, {"models.ease.l2": 6}, resume=True)
    search(inputs, 12, labels=["ease"], resume=True)
    assert told(inputs / "out").equals(told(whole[0] / "out", "ease"))
    assert not (inputs / "out.partial").exists()


def test_a_stopped_search_goes_on_as_if_it_never_had_been(inputs, whole, monkeypatch):
    fits = iter(range(100))
    fit = MultVAE.fit

    def stop_in_the_fifth(self, histories, options):
        fifth = next(fits) == 4
        listener = options.listener

        def hear(step):
            listener(step)
            if fifth and step.done == 2:
                signal.raise_signal(signal.SIGINT)

        object.__setattr__(options, "listener", hear)
        return fit(self, histories, options)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(MultVAE, "fit", stop_in_the_fifth)
        search(inputs, 12)
    assert not (inputs / "out").exists()
    assert len(list((inputs / "out.partial" / "trials" / "mult-vae").iterdir())) == 4
    with pytest.raises(OutputError, match="holds a run that was interrupted, or still goes on"):
        search(inputs, 12)
    with pytest.raises(OutputError, match="was begun with another recipe"):
        search(inputs, 12, {"tune.ease.l2.high": 2000}, resume=True)
    search(inputs, 12, resume=True)
    assert told(inputs / "out").equals(told(whole[0] / "out"))


def test_a_killed_search_goes_on_as_if_it_never_had_been(inputs, whole):
    words = ("tune", "tiny.yaml", "--trials", 12, "--out", "out", "--quiet")
    process = start(*words, folder=inputs)
    until = time.monotonic() + 120
    while not list(inputs.glob("out.partial/trials/*/00002.json")) and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (inputs / "out").exists()
    search(inputs, 12, resume=True)
    assert told(inputs / "out").equals(told(whole[0] / "out"))
    assert not list(inputs.glob("**/*.partial"))


def test_a_search_that_goes_on_names_its_first_run(here, whole):
    with_ranges(here)
    recipe = read_recipe(here / "tiny.yaml")
    for trials in (1, 2):
        found = tuning.tune(recipe, here / "out", trials=trials, labels=["ease"], resume=trials > 1)
    client = MlflowClient(found.tracker.uri)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], order_by=["start_time"])
    first, second = (run for run in runs if run.info.run_name == "tune tiny")
    assert second.data.tags["resumes"] == first.info.run_id
    assert sorted(run.info.run_name for run in runs if run.info.run_name != "tune tiny") == ["ease 0", "ease 1"]


def test_a_full_disk_costs_one_trial(inputs, whole, monkeypatch):
    dump = Trial.model_dump_json

    def full(self):
        if self.number == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return dump(self)

    with monkeypatch.context() as patch, pytest.raises(DiskFull, match="no space left on the disk"):
        patch.setattr(Trial, "model_dump_json", full)
        search(inputs, 12, labels=["ease"])
    search(inputs, 12, labels=["ease"], resume=True)
    assert told(inputs / "out").equals(told(whole[0] / "out", "ease"))


@pytest.mark.parametrize("content", [b"", b"{}", b'{"number": 0, "state": "won"}', b"\xff"])
def test_a_damaged_trial_is_told(content, inputs):
    search(inputs, 2, labels=["ease"])
    (inputs / "out" / "trials" / "ease" / "00001.json").write_bytes(content)
    with pytest.raises(OutputError, match=r"00001\.json is damaged; start again"):
        search(inputs, 3, labels=["ease"], resume=True)


def test_a_trial_that_is_gone_is_told(inputs):
    search(inputs, 2, labels=["ease"])
    (inputs / "out" / "trials" / "ease" / "00000.json").unlink()
    with pytest.raises(OutputError, match=r"00001\.json: the trials before it are gone"):
        search(inputs, 3, labels=["ease"], resume=True)


# What becomes of trials.


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Diverged("loss is not finite"), "loss is not finite"),
        (ModelError("needs 3 GB\nand has 2"), "needs 3 GB and has 2"),
        (MemoryError(), "out of memory on cpu"),
        (RuntimeError("cannot allocate memory"), "out of memory on cpu"),
    ],
)
def test_settings_that_do_not_work_do_not_end_the_search(error, reason, inputs, monkeypatch):
    fit = EASE.fit

    def fails(self, histories, options):
        if self.l2 > 5:
            raise error
        return fit(self, histories, options)

    monkeypatch.setattr(EASE, "fit", fails)
    found = search(inputs, 12, labels=["ease"])
    failed = [trial for trial in found.trials["ease"] if trial.state == "failed"]
    assert failed
    assert {(trial.reason, trial.value) for trial in failed} == {(reason, None)}
    assert all(trial.settings["l2"] > 5 for trial in failed)
    assert found.best("ease").settings["l2"] <= 5
    assert found.caveats[0] == f"ease: {len(failed)} of 12 trials failed, first with: {reason}"


def test_a_mistake_of_ours_ends_the_search(inputs, monkeypatch):
    def fails(self, histories, options):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(EASE, "fit", fails)
    with pytest.raises(RuntimeError, match="shapes differ"):
        search(inputs, 2, labels=["ease"])


def test_a_search_that_found_nothing_says_why(inputs, monkeypatch):
    def fails(self, histories, options):
        raise ModelError("needs 300 GB")

    monkeypatch.setattr(EASE, "fit", fails)
    with pytest.raises(ModelError, match="ease: every trial failed, first with: needs 300 GB"):
        search(inputs, 2, labels=["ease"])


def test_a_training_that_falls_behind_is_given_up(inputs, monkeypatch):
    """The better half of the learning rates learns; the others hardly move, and are not trained to their end."""
    ranges = {"mult-vae": {"learning_rate": [1e-9, 1e-8, 1e-7, 2e-7, 3e-7, 1e-2, 2e-2, 3e-2, 4e-2, 5e-2, 6e-2]}}
    longer = {"models.mult-vae.epochs": 12, "models.mult-vae.learning_rate": 0.01, "tune": ranges}
    found = search(inputs, 11, longer)
    trials = found.trials["mult-vae"]
    assert found.best("mult-vae").settings["learning_rate"] >= 1e-2
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned
    assert all(6 < len(trial.curve) < 12 and trial.value == max(trial.curve) for trial in pruned)
    assert not list((inputs / "out").rglob("*.safetensors"))


def test_ranges_without_settings_that_are_left_end_early(inputs):
    found = search(inputs, 9, {"tune": {"ease": {"l2": [5, 10, 20]}}})
    assert sorted(trial.settings["l2"] for trial in found.trials["ease"]) == [5, 10, 20]
    assert found.caveats[0] == "ease: its ranges have no settings that were not tried after 3 trials"


def test_the_recipes_own_settings_may_lie_outside_of_the_ranges(inputs):
    found = search(inputs, 12, {"tune": {"ease": {"l2": {"low": 100, "high": 200}}}})
    assert found.trials["ease"][0].settings == {"l2": 5}
    assert all(100 <= trial.settings["l2"] <= 200 for trial in found.trials["ease"][1:])


# What it tries next.


def tried(number: int, value: float, state: str = "complete", **settings: object) -> Trial:
    curve = [] if state == "failed" else [value] * 10
    return Trial(number=number, state=state, settings=settings, value=value, seconds=1, curve=curve)


@settings(max_examples=20)
@given(
    low=st.floats(1e-6, 1e3), width=st.floats(1e-3, 1e3), log=st.booleans(), seed=st.integers(0, 2**32 - 1),
    number=st.integers(1, 4),
)  # fmt: skip
def test_a_proposal_lies_in_its_ranges_and_depends_on_the_trials_and_the_seed_alone(low, width, log, seed, number):
    ranges = {"x": Span(low, low + width, log), "n": Span(1, 64, log), "c": Choices(([1], [2, 3]))}
    trials = [tried(place, place / 10, x=low, n=place + 1, c=[1]) for place in range(number)]
    proposal = propose(ranges, trials, seed)
    assert all(one.holds(proposal.settings[key]) for key, one in ranges.items())
    assert type(proposal.settings["n"]) is int
    assert propose(ranges, trials, seed).settings == proposal.settings


def test_the_search_learns(inputs):
    """The figure grows towards x = 0.7: the later half of the settings lies nearer to it than those by chance."""
    ranges, trials = {"x": Span(0.0, 1.0)}, list[Trial]()
    for number in range(40):
        settings = dict(propose(ranges, trials, 0).settings) or {"x": 0.0}
        trials.append(tried(number, 1 - abs(settings["x"] - 0.7), **settings))
    off = [abs(trial.settings["x"] - 0.7) for trial in trials]
    assert sum(off[20:]) / 20 < 0.5 * sum(off[:10]) / 10


def test_settings_that_failed_are_avoided():
    ranges, trials = {"x": Span(0.0, 1.0)}, list[Trial]()
    for number in range(40):
        settings = dict(propose(ranges, trials, 0).settings) or {"x": 0.2}
        failed = settings["x"] > 0.5
        trials.append(tried(number, 1 - abs(settings["x"] - 0.3), "failed" if failed else "complete", **settings))
    assert sum(trial.state == "failed" for trial in trials[20:]) <= 4  # of 20; by chance, ten


def test_the_least_is_sought_where_that_is_the_best():
    ranges, trials = {"x": Span(0.0, 1.0)}, list[Trial]()
    for number in range(40):
        settings = dict(propose(ranges, trials, 0, -1).settings) or {"x": 0.0}
        trials.append(tried(number, abs(settings["x"] - 0.7), **settings))
    off = [trial.value for trial in trials]
    assert sum(off[20:]) / 20 < 0.5 * sum(off[:10]) / 10
    live = propose(ranges, [tried(number, number / 10, x=number / 10) for number in range(7)], 0, -1)
    assert [live.is_hopeless(epoch, 0.31) for epoch in range(1, 7)] == [False] * 5 + [True]


def test_hopeless_is_below_the_median_after_the_warm_up():
    ranges = {"x": Span(0.0, 1.0)}
    trials = [tried(number, number / 10, x=number / 10) for number in range(7)]
    assert warm_up(trials) == 5  # the finished ones took ten epochs each
    assert warm_up([*trials, tried(7, 0.1, "pruned", x=0.9)]) == 5
    assert warm_up([]) == warm_up([tried(0, 0.1, "failed", x=0.9)]) == 0
    live = propose(ranges, trials, 0)
    assert [live.is_hopeless(epoch, 0.29) for epoch in range(1, 7)] == [False] * 5 + [True]
    live = propose(ranges, trials, 0)
    assert not any(live.is_hopeless(epoch, 0.31 - epoch / 1000) for epoch in range(1, 10))
    assert not propose(ranges, trials[:4], 0).is_hopeless(6, 0.0)


def test_optuna_says_nothing_pickles_nothing_and_leaves_the_logging_alone(inputs, monkeypatch, capfd):
    def never(*arguments, **options):
        raise AssertionError("pickled")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    level = logging.getLogger("optuna").level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(inputs, 11, labels=["mult-vae"])
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("optuna").level == level


# The command.


@pytest.fixture
def alone(inputs, monkeypatch) -> Path:
    monkeypatch.chdir(inputs)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    return inputs


def test_the_command_prints_what_it_found(alone):
    done = call("tune", "tiny.yaml", "--trials", 3, "--out", "found")
    assert done.code == 0
    assert done.out.split()[:7] == ["model", "metric", "best", "the", "recipe's", "trials", "settings"]
    assert done.out.count("ndcg@10 ") == 2  # a row each
    assert "3 complete" in done.out
    assert "recae compare found/best.yaml" in done.out
    assert "nothing is tracked" in done.err
    assert call("tune", "tiny.yaml", "--trials", 4, "--out", "found", "--resume", "--quiet").out == ""


def test_the_command_takes_the_columns_and_rules_that_compare_takes(alone):
    names = {"user_id": "who", "item_id": "what", "value": "stars", "timestamp": "when"}
    pd.read_csv("log.csv").rename(columns=names).to_csv("shop.csv", index=False)
    pd.read_csv("items.csv").rename(columns={"item_id": "what"}).to_csv("goods.csv", index=False)
    columns = ("--user-col", "who", "--item-col", "what", "--value-col", "stars", "--time-col", "when")
    rules = ("--min-items", 6, "--values", "keep", "--duplicates", "max", "--items", "goods.csv", "--skip-bad-rows")
    words = ("tune", "tiny.yaml", "--data", "shop.csv", "--trials", 1, "--model", "ease", "--out", "found", "--quiet")
    done = call(*words, *columns, *rules)
    assert (done.code, done.out) == (0, "")
    data = read_recipe(Path("found/best.yaml")).data
    assert data.columns.model_dump() == {"user": "who", "item": "what", "value": "stars", "time": "when"}
    assert data.rules == {"min_value": None, "min_items": 6, "values": "keep", "duplicates": "max"}
    assert (Path(data.items).name, data.skip_bad_rows) == ("goods.csv", True)
    refused = call(*words, "--overwrite", *columns, "--min-value", 6)
    assert (refused.code, "no event has a value of 6 or more" in refused.err) == (2, True)


def test_the_command_searches_for_every_model_that_is_named(alone):
    for named in (["mult-vae", "ease"], ["ease"]):
        words = [word for label in named for word in ("--model", label)]
        done = call("tune", "tiny.yaml", "--trials", 1, *words, "--out", "-".join(named), "--json")
        assert sorted(json.loads(done.out)["trials"]) == sorted(named)


def test_the_command_prints_json(alone):
    done = call(
        "tune", "tiny.yaml", "--trials", 2, "--model", "ease", "--seed", 3, "--set", "tune.ease.l2.low=50", "--json"
    )
    result = json.loads(done.out)
    assert (done.code, list(result)) == (0, ["out", "metrics", "best", "trials", "notes"])
    assert list(result["best"]) == ["ease"]
    assert [trial["settings"]["l2"] >= 50 for trial in result["trials"]["ease"]] == [False, True]
    assert Path(result["out"]).parent == Path("runs/tiny")
    assert read_recipe(Path(result["out"]) / "best.yaml").seed == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--set tune=null", "tune = None: a mapping of keys to values is wanted"),
        ("--set tune={}", "tiny: no ranges to search; write some into the recipe, such as tune: {ease: {l2: {low: …"),
        ("--model popularity", "tiny: popularity: no hyper-parameters to search for"),
        ("--model ease --model popularity", "tiny: popularity: no hyper-parameters to search for"),
        ("--model eese", "--model eese: no model of this recipe; did you mean 'ease'?"),
        ("--trials 0", "invalid value for '--trials'"),
        ("--resume", "--resume: say with --out which search is to go on"),
        ("--resume --out new", "there is no interrupted run to resume; leave out --resume"),
        ("--out log.csv --overwrite", "log.csv was not written by this command (best.yaml is not in it)"),
        ("--device tpu", "unknown device 'tpu'"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(words, said, alone):
    before = {path.name for path in alone.iterdir()}
    done = call("tune", "tiny.yaml", *words.split())
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    assert {path.name for path in alone.iterdir()} == before


def test_without_optuna_it_says_what_to_install(alone, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr("recae.tune_command.find_spec", lambda name: None)
    done = call("tune", "tiny.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err == "recae: recae tune needs optuna, which is not installed: pip install 'recae[tune]'\n"


def test_a_finished_search_of_another_recipe_or_of_other_data_says_so(inputs):
    search(inputs, 1)
    with pytest.raises(OutputError, match=r"out was begun with another recipe; start again instead \(--overwrite\)"):
        search(inputs, 2, {"seed": 7}, resume=True)
    table = pd.read_csv(inputs / "log.csv")
    table.iloc[:-40].to_csv(inputs / "log.csv", index=False)
    with pytest.raises(OutputError, match=r"out was begun with other data; start again instead \(--overwrite\)"):
        search(inputs, 2, resume=True)


def test_values_that_are_all_the_same_are_nothing_to_search_by(inputs):
    with pytest.raises(RecipeError, match="metric 'rmse' compares values, and every held-out one is 1"):
        search(inputs, 1, {"evaluation.metrics": ["rmse"]})
    assert not (inputs / "out.partial").exists()


def test_a_model_that_is_judged_by_another_metric_than_the_recipes_is_told(inputs):
    found = search(inputs, 1, {"evaluation.metrics": ["rmse"], "data.values": "keep"})
    assert "ease, mult-vae: judged by ndcg@100, which a training watches, and not by the recipe's rmse" in found.caveats


def test_a_recipe_without_ranges_says_so(inputs):
    with pytest.raises(RecipeError, match="no ranges to search for mult-vae"):
        search(inputs, 2, {"tune": {"ease": {"l2": [1, 2]}}}, labels=["mult-vae"])
