"""The sample that ships: it is what its README says, and it is clean."""

import re
from pathlib import Path

import pandas as pd
import pytest

from recae.datasets import DATASETS
from recae.files import sha256

DATA = Path(__file__).parents[1] / "data"
README = (DATA / "README.md").read_text(encoding="utf-8")
FILES = ("movielens-small/events.parquet", "movielens-small/items.parquet")


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return pd.read_parquet(DATA / FILES[0])


@pytest.fixture(scope="module")
def items() -> pd.DataFrame:
    return pd.read_parquet(DATA / FILES[1])


def test_the_checksums_in_the_readme_are_those_of_the_files() -> None:
    stated = dict(re.findall(r"^\| `(movielens-small/.+?)` \| `([0-9a-f]{64})` \|$", README, re.MULTILINE))
    assert stated == {file: sha256(DATA / file) for file in FILES}


def test_both_files_together_stay_below_a_megabyte() -> None:
    assert sum((DATA / file).stat().st_size for file in FILES) < 1_000_000


def test_the_counts_in_the_readme_hold(events: pd.DataFrame, items: pd.DataFrame) -> None:
    assert "100,004 star ratings of 9,066 films by 671 users" in README
    assert (len(events), events["user_id"].nunique(), events["item_id"].nunique()) == (100_004, 671, 9_066)
    assert len(items) == 9_066


def test_events_are_clean(events: pd.DataFrame) -> None:
    assert events.dtypes.astype(str).to_dict() == {
        "user_id": "int64",
        "item_id": "int64",
        "value": "float32",
        "timestamp": "int64",
    }
    assert not events.isna().any(axis=None)
    assert not events.duplicated(["user_id", "item_id"]).any()
    assert set(events["value"]) == {star / 2 for star in range(1, 11)}
    assert events.equals(events.sort_values(["user_id", "timestamp", "item_id"]))


def test_every_event_has_a_film_and_every_film_a_clean_title(events: pd.DataFrame, items: pd.DataFrame) -> None:
    assert items["item_id"].is_monotonic_increasing
    assert items["item_id"].is_unique
    assert set(items["item_id"]) == set(events["item_id"])
    assert not items[["title", "genres"]].isna().any(axis=None)
    assert (items["title"] == items["title"].str.split().str.join(" ")).all()
    assert items["year"].isna().sum() == 3
    assert items["year"].dropna().between(1900, 2016).all()
    titles = items.set_index("item_id")["title"]
    assert titles[[1, 73, 2324]].tolist() == ["Toy Story", "Misérables, Les", "Life Is Beautiful (La Vita è bella)"]


def test_the_readme_lists_what_can_be_fetched() -> None:
    rows = re.findall(r"^\| `(ml-.+?)` \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| (.+) \|$", README, re.MULTILINE)
    assert [name for name, *_ in rows] == list(DATASETS)
    for name, *counts, checksum in rows:
        known = DATASETS[name]
        assert [int(count.replace(",", "")) for count in counts] == [known.events, known.users, known.items]
        assert (checksum == f"`{known.md5}`") if known.md5 else checksum.startswith("none: ")
