"""The units of a sparse autoencoder by name: the table, and the command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import ITEMS, call, everything_in, log, write_inputs

from recae.artifact import load_model
from recae.errors import InputError
from recae.jobs import read_histories
from recae.tables import about
from recae.units import name_units

SETTINGS = ("latent=8", "active=2", "epochs=4", "batch_size=20")
TRAIN = [word for setting in SETTINGS for word in ("--set", setting)] + ["--min-items", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, a sparse autoencoder with titles, one without, and an ease; nobody changes them."""
    folder = write_inputs(tmp_path_factory.mktemp("units"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call("train", "sparse-ae", "log.csv", "--out", "sparse", "--items", "items.csv", *TRAIN).code == 0
        assert call("train", "sparse-ae", "log.csv", "--out", "untitled", *TRAIN).code == 0
        assert call("train", "ease", "log.csv", "--out", "ease").code == 0
    return folder


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_units_are_named_those_that_fire_most_first(folder: Path) -> None:
    model = load_model(folder / "sparse")
    units = list(name_units(model, top=3))

    assert sorted(unit["unit"] for unit in units) == list(range(8))
    fires = [unit["fires"] for unit in units]
    assert fires == sorted(fires, reverse=True)
    assert sum(fires) <= 2 + 1e-6
    weight = model.model.embed_items()[:, :-1].numpy().astype(float)
    spread = weight.std(axis=1)
    excess = (weight - weight.mean(axis=1)[:, None]) / np.sqrt(spread**2 + spread.mean() ** 2)[:, None]
    titles = model.item_table["title"]
    for unit in units:
        best = np.argsort(-excess[:, unit["unit"]], kind="stable")[:3]
        assert unit["item_id"] == list(model.items.to_ids(best))
        assert unit["title"] == titles.iloc[best].tolist()
        np.testing.assert_allclose(unit["weight"], weight[best, unit["unit"]], rtol=1e-6)
        np.testing.assert_allclose(unit["excess"], excess[best, unit["unit"]], rtol=1e-3)
        assert "lift" not in unit


def test_with_a_log_units_are_named_by_what_its_users_have_for_whom_they_fire(folder: Path) -> None:
    model = load_model(folder / "sparse")
    read = read_histories(model, folder / "log.csv")
    units = list(name_units(model, read, top=3))
    has = read.histories.matrix.toarray() > 0
    fires = model.model.embed_users(read.histories.matrix).numpy() > 0
    for unit in units:
        firing = fires[:, unit["unit"]]
        expected = (has[firing].sum(axis=0) + 10) / (has.sum(axis=0) * firing.mean() + 10)
        np.testing.assert_allclose(unit["lift"], np.sort(expected)[::-1][:3], rtol=1e-5)
        np.testing.assert_allclose(unit["lift"], expected[model.items.to_index(unit["item_id"])], rtol=1e-5)


def test_of_the_training_s_own_log_units_fire_as_often_as_they_did(folder: Path) -> None:
    model = load_model(folder / "sparse")
    own = name_units(model, read_histories(model, folder / "log.csv"), top=2)
    kept = {unit["unit"]: unit["fires"] for unit in name_units(model, top=2)}
    assert {unit["unit"]: unit["fires"] for unit in own} == pytest.approx(kept)
    assert own.dead == sum(unit["fires"] == 0 for unit in own)


def test_users_without_an_item_that_is_known_do_not_count(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "sparse")
    strangers = pd.DataFrame({"user_id": ["x", "y"], "item_id": ["nothing", "known"], "value": 1})
    both = pd.concat([log()[["user_id", "item_id", "value"]], strangers])
    both.to_csv(tmp_path / "both.csv", index=False)
    log().to_csv(tmp_path / "log.csv", index=False)
    with_them, without = (name_units(model, read_histories(model, tmp_path / name)) for name in ("both.csv", "log.csv"))
    assert list(with_them) == list(without)


def test_the_command_prints_writes_and_says_how_many_never_fire(inside: Path, tmp_path: Path) -> None:
    out = tmp_path / "units.parquet"
    done = call("units", "sparse", "log.csv", "--top", "4", "-n", "3", "--out", out)
    assert (done.code, done.err) == (0, "")
    assert "fires for" in done.out
    assert done.out.count("Film") == 12
    assert "8 units, " in done.out
    assert f"{out}: 32 rows" in done.out
    table = pq.read_table(out)
    assert table.column_names == ["unit", "fires", "rank", "item_id", "weight", "excess", "lift", "title"]
    assert about(out)["model"] == "sparse-ae"
    frame = table.to_pandas()
    assert frame.groupby("unit")["rank"].apply(list).tolist() == [[1, 2, 3, 4]] * 8
    assert (frame.groupby("unit")["lift"].diff().dropna() <= 0).all()


def test_without_titles_items_go_by_their_ids(inside: Path) -> None:
    done = call("units", "untitled", "--top", "2")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("; i") == 8


def test_as_json_are_the_units_that_the_table_has_and_how_many_there_are(inside: Path) -> None:
    told = json.loads(call("units", "sparse", "--top", "99", "-n", "3", "--json").out)
    model = load_model(Path("sparse"))
    every = list(name_units(model, top=99))
    assert (told["all_units"], told["dead_units"]) == (8, sum(unit["fires"] == 0 for unit in every))
    assert [unit["unit"] for unit in told["units"]] == [unit["unit"] for unit in every[:3]]
    assert {len(unit["item_id"]) for unit in told["units"]} == {ITEMS}
    assert len(json.loads(call("units", "sparse", "--json").out)["units"]) == 8
    assert json.loads(call("units", "sparse", "-n", "0", "--json").out)["units"] == []
    assert call("units", "sparse", "--quiet").out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("units ease", "ease has no units that fire for some users and not for others; sparse-ae has"),
        ("units sparse --top 0", "--top 0: ask for at least 1 item of each unit"),
        ("units sparse -n -1", "-n -1: ask for at least 0 units to print"),
        ("units nowhere", "nowhere: no such model directory"),
        ("units sparse nolog.csv", "nolog.csv"),
        ("units sparse --out sparse/model.json", "sparse/model.json"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(inside: Path, words: str, said: str) -> None:
    before = everything_in(inside)
    done = call(*words.split())
    assert done.code == 2, done
    assert done.err.startswith("recae: ")
    assert done.err.count("\n") == 1
    assert said in done.err
    assert everything_in(inside) == before


def test_a_top_below_one_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="--top 0"):
        name_units(load_model(folder / "sparse"), top=0)
