"""`recae data prepare`: a directory that stands for the log, by the rules that made it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from commands import call, log
from hypothesis import given, settings
from hypothesis import strategies as st

from recae import jobs
from recae.artifact import load_model
from recae.errors import EventsError
from recae.experiment import read_split
from recae.interactions import Interactions
from recae.metrics import Metric
from recae.models import build
from recae.preparation import LEFT_OPEN, RULES
from recae.reading import DataSection, checked, prepare_log, read_interactions
from recae.recipe import read_recipe
from recae.tables import about


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log().to_parquet(tmp_path / "log.parquet", row_group_size=100)
    return tmp_path


def section(path: Path, **rules: object) -> DataSection:
    return DataSection.model_validate({"path": str(path), "min_items": 1, **rules})


@pytest.mark.parametrize("asked", [{}, {"values": "keep"}, {"min_items": 6}, {"values": "keep", "min_items": 7}])
@pytest.mark.parametrize("rules", [{}, {"min_value": 3.0}, {"duplicates": "mean"}, {"min_items": 6}])
def test_a_prepared_log_is_read_as_the_log_itself(folder: Path, rules: dict, asked: dict) -> None:
    prepare_log(section(folder / "log.parquet", **{"values": "keep", **rules}), folder / "ready")
    both = {**rules, **asked, "min_items": max(rules.get("min_items", 1), asked.get("min_items", 1))}
    one, other = (read_interactions(section(folder / name, **both)) for name in ("log.parquet", "ready"))
    assert one.digest() == other.digest()
    assert dict(one.counts) == dict(other.counts)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (
            {"min_value": 4.0},
            "prepared with min_value 3.0, and min_value 4.0 is asked for; ask for the same or leave it out, or prepare",
        ),
        ({"min_value": None}, "prepared with min_value 3.0, and no min_value is asked for"),
        ({"duplicates": "sum"}, "prepared with duplicates last, and duplicates sum is asked for"),
        ({"min_items": 1}, "prepared with min_items 2, and min_items 1 is asked for"),
        ({"min_items": 99}, "no user has 99 distinct items, the longest history"),
        ({"columns": {"user": "u"}}, "prepared already, and has no columns to choose"),
        ({"items": "items.csv"}, "prepared already, with its items"),
    ],
)
def test_rules_it_was_not_prepared_by_are_refused_where_they_are_asked_for(
    folder: Path, rules: dict, words: str
) -> None:
    prepare_log(section(folder / "log.parquet", values="keep", min_value=3.0, min_items=2), folder / "ready")
    with pytest.raises(EventsError) as caught:
        read_interactions(DataSection.model_validate({"path": str(folder / "ready"), **rules}))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_values_that_were_not_kept_are_refused(folder: Path) -> None:
    prepare_log(section(folder / "log.parquet"), folder / "ready")
    with pytest.raises(EventsError, match="prepared with values binary, and values keep is asked for"):
        read_interactions(section(folder / "ready", values="keep"))


# What a user may give, of each rule: nothing, or something else than the default.
given_rules = st.fixed_dictionaries(
    {},
    optional={
        "min_value": st.sampled_from([None, 3.0]),
        "min_items": st.sampled_from([2, 6, 7]),
        "values": st.sampled_from(["binary", "keep"]),
        "duplicates": st.sampled_from(["last", "sum"]),
    },
)


@settings(max_examples=25)
@given(given_rules, given_rules)
def test_what_is_not_asked_for_is_as_it_was_prepared(
    tmp_path_factory: pytest.TempPathFactory, prepared: dict, asked: dict
) -> None:
    folder = tmp_path_factory.mktemp("rules")
    pd.concat([log(), log()[::3].assign(value=2)]).to_parquet(folder / "log.parquet")
    data = checked(DataSection, {"path": str(folder / "log.parquet"), **prepared}, "here", otherwise=LEFT_OPEN)
    prepare_log(data, folder / "ready")
    taken = DataSection(path=str(folder / "ready"), **asked)
    made_by = {**prepared, "values": data.rules["values"]}
    decided = {name: rule for name, rule in made_by.items() if LEFT_OPEN.get(name) != rule}
    assert taken.rules == DataSection(path="", **{**decided, **asked}).rules
    assert DataSection(**taken.model_dump()) == taken
    try:
        found = read_interactions(taken)
    except EventsError as error:
        # Only what was asked for can contradict.
        assert any(f"and {'no ' if asked[name] is None else ''}{name}" in str(error) for name in asked)
    else:
        log_itself = read_interactions(DataSection(path=data.path, **taken.rules))
        assert found.digest() == log_itself.digest() and dict(found.counts) == dict(log_itself.counts)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{}",
        "[" * 100_000,
        '{"min_value": 1, "values": "all", "duplicates": "last", "min_items": 3}',
        '{"min_value": "x", "values": "keep", "duplicates": "last", "min_items": 3}',
        '{"min_value": NaN, "values": "keep", "duplicates": "last", "min_items": 3}',
        '{"min_value": 1, "values": "keep", "duplicates": "last", "min_items": 0}',
        '{"min_value": 1, "values": "keep", "duplicates": "last", "min_items": 1e999}',
    ],
)
def test_damaged_rules_are_refused(folder: Path, text: str | None) -> None:
    prepare_log(section(folder / "log.parquet"), folder / "ready")
    rules = folder / "ready" / "preparation.json"
    rules.unlink() if text is None else rules.write_text(text)
    with pytest.raises(EventsError, match="prepare the log again"):
        read_interactions(section(folder / "ready"))


def test_an_item_table_that_tells_nothing_leaves_no_directory(folder: Path) -> None:
    pd.DataFrame({"item_id": ["other"], "title": ["Other"]}).to_parquet(folder / "items.parquet")
    with pytest.raises(EventsError, match="tells nothing of any item"):
        prepare_log(section(folder / "log.parquet", items=str(folder / "items.parquet")), folder / "ready")
    assert sorted(path.name for path in folder.iterdir()) == ["items.parquet", "log.parquet"]


def test_the_command(folder: Path) -> None:
    ready = folder / "ready"
    done = call("data", "prepare", folder / "log.parquet", "--out", ready)
    assert done.code == 0 and "60 users, 24 items" in done.out and str(ready) in done.out
    again = call("data", "prepare", folder / "log.parquet", "--out", ready)
    assert again.code == 2 and "--overwrite" in again.err
    told = json.loads(call("data", "prepare", folder / "log.parquet", "--out", ready, "--overwrite", "--json").out)
    assert told["users"] == 60 and told["interactions"] == told["counts"]["interactions"]

    described = [call("data", "describe", path, "--json").out for path in (folder / "log.parquet", ready)]
    assert described[0] == described[1]
    trained = [call("train", "ease", path, "--out", folder / f"of-{path.name}", "--json", "--quiet")
               for path in (folder / "log.parquet", ready)]  # fmt: skip
    assert [one.code for one in trained] == [0, 0]
    weights = [(folder / f"of-{name}" / "weights.safetensors").read_bytes() for name in ("log.parquet", "ready")]
    assert weights[0] == weights[1]


def test_commands_take_the_rules_it_was_prepared_by(folder: Path) -> None:
    source, ready = folder / "log.parquet", folder / "ready"
    rules = ("--min-value", 3, "--min-items", 3, "--duplicates", "first")
    assert call("data", "prepare", source, "--out", ready, *rules).code == 0
    for name, words in ((source, rules), (ready, ()), (ready, rules[:2])):
        done = call("train", "ease", name, "--out", folder / "model", *words, "--overwrite", "--json")
        assert (done.code, done.err) == (0, "")
        card = json.loads(done.out)
        assert card["preparation"] == {"min_value": 3.0, "values": "binary", "duplicates": "first"}
        assert card["data"]["digest"] == read_interactions(section(source, min_value=3.0, min_items=3)).digest()
        described = json.loads(call("data", "describe", name, *words, "--json").out)
        assert described["value_range"] == [3, 5]
    for option, value, words in (
        ("--min-value", 4, "prepared with min_value 3.0, and min_value 4.0 is asked for"),
        ("--min-items", 2, "prepared with min_items 3, and min_items 2 is asked for"),
        ("--duplicates", "last", "prepared with duplicates first, and duplicates last is asked for"),
    ):
        for command in (("train", "ease", ready, "--out", folder / "other"), ("data", "describe", ready)):
            refused = call(*command, option, value)
            assert refused.code == 2 and refused.err.count("\n") == 1 and words in refused.err
    assert not (folder / "other").exists()


def test_help_shows_what_holds_unless_something_else_is_given() -> None:
    for command, default in ((("train",), 5), (("data", "describe"), 1), (("data", "prepare"), 1)):
        told = " ".join(call(*command, "--help").out.replace("│", " ").split())
        assert f"[default: ({default})]" in told and "[default: (last)]" in told
    for command in ("compare", "tune"):
        told = " ".join(call(command, "--help").out.replace("│", " ").split())
        assert told.count("[default: (the recipe's)]") == 3


def test_compare_takes_the_rules_of_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.concat([log(), log().assign(value=1)]).to_parquet(folder / "log.parquet")
    recipe = {"name": "tiny", "data": {"path": "log.parquet", "duplicates": "max"}, "models": {"popularity": {}}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    words = ("--duplicates", "sum", "--min-items", 6, "--min-value", 2)
    assert call("compare", folder / "tiny.yaml", "--out", folder / "out", "--quiet", *words).code == 0
    rules = {"duplicates": "sum", "min_items": 6, "min_value": 2.0, "values": "binary"}
    assert read_recipe(folder / "out" / "recipe.yaml").data.rules == rules


@pytest.mark.parametrize("asked", [{}, {"min_value": 3}])
def test_a_recipe_says_what_it_does_with_a_prepared_log(folder: Path, asked: dict) -> None:
    prepare_log(section(folder / "log.parquet", values="keep", min_value=3.0, min_items=6), folder / "ready")
    recipe = {"name": "tiny", "data": {"path": "ready", **asked}, "models": {"popularity": {}}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    plan = read_recipe(folder / "tiny.yaml")
    assert (plan.data.min_value, plan.data.min_items, plan.data.values) == (3.0, 6, "binary")  # noqa: PD011
    (folder / "again.yaml").write_text(plan.resolved())
    assert read_recipe(folder / "again.yaml") == plan
    assert read_split(plan).train.digest() == read_split(read_recipe(folder / "again.yaml")).train.digest()


def test_what_a_recipe_rules_otherwise_is_refused(folder: Path) -> None:
    prepare_log(section(folder / "log.parquet", values="keep", min_value=3.0), folder / "ready")
    recipe = {"name": "tiny", "data": {"path": "ready", "min_value": 4}, "models": {"popularity": {}}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    refused = call("compare", folder / "tiny.yaml", "--out", folder / "out", "--quiet")
    words = (
        "prepared with min_value 3.0, and min_value 4.0 is asked for; set data.min_value to the same or leave it out"
    )
    assert refused.code == 2 and words in refused.err and refused.err.count("\n") == 1
    assert not (folder / "out").exists()
    assert read_split(read_recipe(folder / "tiny.yaml", {"data.min_value": 3})).train.matrix.nnz


def test_the_recipe_for_ones_own_log_takes_a_log_prepared_by_any_rules(folder: Path) -> None:
    rules = {"min_value": 3.0, "min_items": 3, "values": "keep", "duplicates": "sum"}
    prepare_log(section(folder / "log.parquet", **rules), folder / "ready")
    plan = read_recipe(Path(__file__).parents[1] / "pipelines" / "own-log.yaml", {"data.path": str(folder / "ready")})
    assert plan.data.rules == {**rules, "values": "binary"}
    assert len(read_split(plan).train.users)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, what was prepared of it, and models of both; nobody changes what is in it."""
    folder = tmp_path_factory.mktemp("trained")
    log().to_parquet(folder / "log.parquet")
    for name, rules in {"all": {}, "liked": {"min_value": 3.0}, "sum": {"duplicates": "sum"}}.items():
        prepare_log(section(folder / "log.parquet", values="keep", **rules), folder / name)
        data = DataSection(path=str(folder / name))
        jobs.train(build("ease"), data, folder / f"ease-{name}")
        jobs.train(build("als", factors=4), data, folder / f"als-{name}")
    summed = DataSection(path=str(folder / "sum"), values="keep")
    jobs.train(build("ease"), summed, folder / "ease-values")
    return folder


@pytest.mark.parametrize("model", ["ease-all", "als-all", "als-sum"])
@pytest.mark.parametrize("ready", ["all", "sum"])
def test_its_histories_are_those_of_the_log(trained: Path, tmp_path: Path, model: str, ready: str) -> None:
    fitted = load_model(trained / model)
    whole, opened = (jobs.read_histories(fitted, trained / name) for name in ("log.parquet", ready))
    assert opened.histories.digest() == whole.histories.digest()
    assert dict(opened.histories.counts) == dict(whole.histories.counts)
    assert (opened.seen != whole.seen).nnz == opened.below == opened.untold == 0
    for read, name in ((whole, "whole"), (opened, "opened")):
        done = jobs.recommend(fitted, read, 5, tmp_path / f"{name}.parquet")
        assert done.notes == {}
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "opened.parquet").read_bytes()
    wanted = [Metric.parse("recall@5")]
    figures = [jobs.evaluate_model(fitted, trained / name, wanted) for name in ("log.parquet", ready)]
    assert figures[0][0].per_user.equals(figures[1][0].per_user) and figures[0][1] == figures[1][1]


def test_items_of_another_catalogue_are_left_out_and_counted(trained: Path, tmp_path: Path) -> None:
    other = log().replace({"item_id": {f"i{item:02}": f"new{item}" for item in range(0, 24, 5)}})
    other.to_parquet(tmp_path / "log.parquet")
    prepare_log(section(tmp_path / "log.parquet", values="keep"), tmp_path / "ready")
    fitted = load_model(trained / "als-all")
    whole, opened = (jobs.read_histories(fitted, tmp_path / name) for name in ("log.parquet", "ready"))
    assert opened.histories.digest() == whole.histories.digest()
    assert dict(opened.histories.counts) == dict(whole.histories.counts)
    assert opened.histories.counts["unknown_item_events"] > 0
    log().assign(item_id="stranger").to_parquet(tmp_path / "log.parquet")
    prepare_log(section(tmp_path / "log.parquet", values="keep"), tmp_path / "strange")
    with pytest.raises(EventsError, match=r"strange: the model knows none of its items, such as stranger; its own are"):
        jobs.read_histories(fitted, tmp_path / "strange")


def test_what_was_prepared_away_is_told(trained: Path, tmp_path: Path) -> None:
    fitted = load_model(trained / "ease-liked")
    below = int((log()["value"] < 3).sum())
    read = jobs.read_histories(fitted, trained / "liked")
    assert read.histories.digest() == jobs.read_histories(fitted, trained / "log.parquet").histories.digest()
    with pytest.raises(EventsError, match=rf"without {below} events below its threshold, .*; give the log itself"):
        jobs.recommend(fitted, read, 5, tmp_path / "top.parquet")
    told = jobs.recommend(fitted, read, 5, tmp_path / "top.parquet", keep_seen=True).notes
    assert told == {"events below the model's min_value of 3.0: left out": below}


@pytest.mark.parametrize(
    ("model", "ready", "words"),
    [
        ("ease-liked", "all", "prepared with no min_value, and min_value 3.0 is what the model was trained with"),
        ("ease-all", "liked", "prepared with min_value 3.0, and no min_value is what the model was trained with"),
        ("ease-values", "all", "prepared with duplicates last, and duplicates sum is what the model was trained with"),
    ],
)
@pytest.mark.parametrize("command", ["recommend", "evaluate"])
def test_a_log_prepared_otherwise_than_the_model_is_refused(
    trained: Path, tmp_path: Path, command: str, model: str, ready: str, words: str
) -> None:
    place = ("--out", tmp_path / "top.parquet") if command == "recommend" else ()
    refused = call(command, trained / model, trained / ready, *place)
    assert refused.code == 2 and words in refused.err and refused.err.count("\n") == 1
    assert "prepare the log again with that, or give the log itself" in refused.err
    assert not list(tmp_path.iterdir())


def test_the_other_commands_take_it_too(trained: Path, tmp_path: Path) -> None:
    for command in (("recommend",), ("embed", "--kind", "latent")):
        for name in ("log.parquet", "all"):
            out = tmp_path / f"{command[0]}-{name}.parquet"
            done = call(command[0], trained / "als-all", trained / name, *command[1:], "--out", out)
            assert (done.code, done.err) == (0, "")
        written = [(tmp_path / f"{command[0]}-{name}.parquet").read_bytes() for name in ("log.parquet", "all")]
        assert written[0] == written[1]
    top = tmp_path / "recommend-all.parquet"
    held_out = [
        call("evaluate", "--recommendations", top, "--held-out", trained / name, "--metrics", "recall@5", "--json").out
        for name in ("log.parquet", "all")
    ]
    assert held_out[0] == held_out[1] and held_out[0]
    both = call("evaluate", trained / "als-all", trained / "all", "--held-out", trained / "all")
    assert both.code == 2 and "the held-out items must not be in EVENTS" in both.err
    refused = call(
        "recommend", trained / "als-all", trained / "all", "--user-col", "u", "--out", tmp_path / "x.parquet"
    )
    assert refused.code == 2 and "prepared already, and has no columns to choose; leave their names out" in refused.err
    refused = call("data", "prepare", trained / "all", "--out", tmp_path / "again")
    assert refused.code == 2 and "prepared already; here the log itself is wanted" in refused.err


def test_a_log_that_comes_split_is_wanted_itself(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "given.yaml").write_text("data: {path: log}\nsplit: {kind: given}\nmodels: {ease: {}}\nname: given\n")
    refused = call("compare", tmp_path / "given.yaml", "--data", trained / "all", "--out", tmp_path / "out")
    assert refused.code == 2 and "all: prepared already, in one piece; give the log itself" in refused.err


def test_what_was_saved_from_python_without_counts_is_described(trained: Path, tmp_path: Path) -> None:
    prepared = Interactions.load(trained / "all")
    replace(prepared, counts={}).save(tmp_path / "bare")
    (tmp_path / "bare" / RULES).write_bytes((trained / "all" / RULES).read_bytes())
    assert call("data", "describe", tmp_path / "bare").code == 0


def test_items_have_vectors_of_one_kind(trained: Path, tmp_path: Path) -> None:
    place = tmp_path / "items.parquet"
    refused = call("embed", trained / "als-all", "--items", "--kind", "latent", "--out", place)
    assert refused.code == 2 and refused.err.count("\n") == 1 and "als has no latent vectors of items" in refused.err
    assert not place.exists()
    assert call("embed", trained / "als-all", "--items", "--out", place).code == 0
    assert about(place)["kind"] == "retrieval"
    again = call("embed", trained / "als-all", "--items", "--kind", "retrieval", "--out", place, "--overwrite")
    assert again.code == 0 and about(place)["kind"] == "retrieval"


@pytest.mark.parametrize("rule", ["first", "sum"])
def test_what_repeated_events_become_is_asked_for_by_one_option_everywhere(folder: Path, rule: str) -> None:
    twice = pd.concat([log(), log().assign(value=1)])
    twice.to_parquet(folder / "log.parquet")
    done = call("data", "prepare", folder / "log.parquet", "--duplicates", rule, "--out", folder / "ready")
    assert (done.code, done.err) == (0, "")
    one, other = (
        read_interactions(section(folder / name, values="keep", duplicates=rule)) for name in ("log.parquet", "ready")
    )
    assert one.digest() == other.digest()
    for command, place in ((("data", "describe"), ()), (("train", "popularity"), ("--out", folder / "model"))):
        refused = call(*command, folder / "ready", "--duplicates", "last", *place)
        assert refused.code == 2 and f"with duplicates {rule}, and duplicates last is asked for" in refused.err
        assert call(*command, folder / "ready", *place).code == 0


def test_a_rule_that_is_none_is_refused(folder: Path) -> None:
    refused = call("data", "prepare", folder / "log.parquet", "--duplicates", "best", "--out", folder / "ready")
    assert refused.code == 2 and refused.err.count("\n") == 1 and "--duplicates" in refused.err


def test_values_that_are_binary_already_stay_on_the_disk(folder: Path) -> None:
    for values, mapped in (("binary", True), ("keep", False)):
        prepare_log(section(folder / "log.parquet", values=values), folder / values)
        place = ones = read_interactions(section(folder / values)).matrix.data
        assert (ones == 1).all()
        while not isinstance(place, np.memmap | None):
            place = place.base
        assert (place is not None) == mapped


def test_a_prepared_log_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    load = Interactions.load
    monkeypatch.setattr(Interactions, "load", lambda place: opened.append(place) or load(place))
    told = pd.DataFrame({"item_id": ["i03", "other"], "title": ["Three", "Other"]})
    told.to_parquet(folder / "items.parquet")
    prepared = prepare_log(section(folder / "log.parquet", items=str(folder / "items.parquet")), folder / "ready")
    assert opened == [folder / "ready"]
    assert prepared.item_table["title"].dropna().tolist() == ["Three"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("indices", lambda column: np.zeros_like(column)),
        ("indices", lambda column: column.astype(np.int64)),
        ("data", lambda column: column.astype(">f4")),
        ("data", lambda column: column[0]),
    ],
    ids=["an item twice", "wide", "swapped", "no column"],
)
def test_arrays_that_are_not_what_was_written_are_refused(folder: Path, name: str, damage: Callable) -> None:
    prepare_log(section(folder / "log.parquet"), folder / "ready")
    place = folder / "ready" / f"{name}.npy"
    np.save(place, damage(np.load(place)))
    with pytest.raises(EventsError, match=f"{name}.npy: (damaged|not as long)"):
        read_interactions(section(folder / "ready"))


def test_names_are_those_of_the_log_that_is_not_prepared(trained: Path, tmp_path: Path) -> None:
    renamed = log().rename(columns={"user_id": "who", "item_id": "what"})
    first = renamed.duplicated("who")
    names = ("--user-col", "who", "--item-col", "what", "--metrics", "recall@5", "--json")
    model = trained / "als-all"
    for name, part in (("histories.csv", renamed[first]), ("held_out.csv", renamed[~first])):
        part.to_csv(tmp_path / name, index=False)
        columns = {"user": "who", "item": "what"}
        prepare_log(section(tmp_path / name, values="keep", columns=columns), tmp_path / f"ready-{name}")
    sides = [(tmp_path / f"{one}histories.csv", tmp_path / f"{other}held_out.csv")
             for one, other in (("", ""), ("ready-", ""), ("", "ready-"))]  # fmt: skip
    done = [call("evaluate", model, side, "--held-out", other, *names) for side, other in sides]
    assert [(one.code, one.err) for one in done] == [(0, "")] * 3
    assert done[0].out == done[1].out == done[2].out
    refused = call(
        "evaluate", model, tmp_path / "ready-histories.csv", "--held-out", tmp_path / "ready-held_out.csv", *names
    )
    assert refused.code == 2 and "prepared already, and has no columns to choose" in refused.err
    refused = call("evaluate", model, tmp_path / "ready-histories.csv", *names)
    assert refused.code == 2 and "prepared already, and has no columns to choose" in refused.err

    theirs = pd.DataFrame({"who": ["u00", "u01"], "what": ["i00", "i01"], "rank": [1, 1]})
    theirs.to_csv(tmp_path / "theirs.csv", index=False)
    given = [call("evaluate", "--recommendations", tmp_path / "theirs.csv", "--held-out", other, *names)
             for other in (tmp_path / "held_out.csv", tmp_path / "ready-held_out.csv")]  # fmt: skip
    assert [(one.code, one.err) for one in given] == [(0, "")] * 2 and given[0].out == given[1].out
