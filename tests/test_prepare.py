"""`recae data prepare`: a directory that takes the log's place, and refuses what it can no longer tell."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import call, log

from recae.errors import EventsError
from recae.experiment import prepare_log, read_interactions
from recae.interactions import Interactions
from recae.recipe import DataSection


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
            "prepared with min_value 3.0, and 4.0 is asked for; ask for 3.0, or prepare the log again",
        ),
        ({}, "prepared with min_value 3.0, and None is asked for"),
        ({"min_value": 3.0, "duplicates": "sum"}, "prepared with duplicates last, and sum is asked for"),
        ({"min_value": 3.0, "min_items": 1}, "prepared with min_items 2, and 1 is asked for; ask for 2 or more"),
        ({"min_value": 3.0, "min_items": 99}, "no user has 99 distinct items, the longest history"),
        ({"min_value": 3.0, "columns": {"user": "u"}}, "prepared already, with its columns and items"),
    ],
)
def test_rules_it_was_not_prepared_by_are_refused(folder: Path, rules: dict, words: str) -> None:
    prepare_log(section(folder / "log.parquet", values="keep", min_value=3.0, min_items=2), folder / "ready")
    with pytest.raises(EventsError) as caught:
        read_interactions(section(folder / "ready", **{"min_items": 2, **rules}))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "{}", '{"min_value": "x", "values": 1, "duplicates": 2, "min_items": 3}'])
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

    refused = call("recommend", folder / "of-ready", ready, "--out", folder / "top.parquet")
    assert refused.code == 2 and "prepared already; here the log itself is wanted" in refused.err


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
        refused = call(*command, folder / "ready", *place)
        assert refused.code == 2 and f"with duplicates {rule}, and last is asked for" in refused.err
        assert call(*command, folder / "ready", "--duplicates", rule, *place).code == 0


def test_a_rule_that_is_none_is_refused(folder: Path) -> None:
    refused = call("data", "prepare", folder / "log.parquet", "--duplicates", "best", "--out", folder / "ready")
    assert refused.code == 2 and refused.err.count("\n") == 1 and "--duplicates" in refused.err


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
