"""The benchmarks, without the data that does not ship: a line that says what is wanted where, and code 2."""

import argparse
import importlib
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recae.recipe import read_recipe

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a benchmark as its script would."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def write(folder: Path, **tables: str) -> Path:
    """Write a zip as the benchmarks want it."""
    with zipfile.ZipFile(folder / "ml-1m-strong.zip", "w") as archive:
        for name, rows in tables.items():
            archive.writestr(f"ml-1m-strong/{name}.csv", rows)
    return folder


PAIRS = "user,item\n"
WHOLE = {
    "items": "item\n1\n2\n5\n",
    "train": f"{PAIRS}7,2\n7,5\n9,1\n",
    "validation_tr": f"{PAIRS}3,1\n4,2\n",
    "validation_te": f"{PAIRS}4,5\n",
    "test_tr": PAIRS,
    "test_te": PAIRS,
}


def test_what_is_there_is_read(tmp_path: Path, benchmark: Callable[[str], ModuleType]) -> None:
    ml_1m = benchmark("ml_1m")
    folder = write(tmp_path, **WHOLE)
    assert ml_1m.amiss(folder) is None
    assert np.array_equal(ml_1m.training_users(folder).toarray(), [[0, 1, 1], [1, 0, 0]])
    history, held_out = ml_1m.fold(folder, "validation")
    assert np.array_equal(history.toarray(), [[1, 0, 0], [0, 1, 0]])
    assert np.array_equal(held_out.toarray(), [[0, 0, 0], [0, 0, 1]])


def tables(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / "ml-1m-strong.zip") as archive:
        return {name: archive.read(f"ml-1m-strong/{name}.csv") for name in WHOLE}


def test_the_zip_is_made_of_the_archive(
    tmp_path: Path,
    benchmark: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = tmp_path / "ml-1m.zip"
    ratings = [f"{user}::{item}::{5 - (item == 8)}::{user + item}\n" for user in range(1, 1301) for item in range(1, 9)]
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("ml-1m/ratings.dat", "".join(ratings) + "1::9::3::1\n")
    monkeypatch.setattr(sys, "argv", ["make_ml_1m.py", str(archive), "--data", str(tmp_path / "new")])
    benchmark("make_ml_1m").main()
    ml_1m = benchmark("ml_1m")
    assert capsys.readouterr().out == f"{tmp_path}/new/ml-1m-strong.zip\n"
    assert ml_1m.amiss(tmp_path / "new") is None
    assert ml_1m.training_users(tmp_path / "new").shape == (100, 8)  # three stars are no like
    history, held_out = ml_1m.fold(tmp_path / "new", "test")
    assert (history.shape, history.nnz, held_out.nnz) == ((600, 8), 600 * 7, 600)


@pytest.mark.real_data
def test_the_zip_is_the_split_of_the_literature(
    real_data: Callable[[str], Path], tmp_path: Path, benchmark: Callable[[str], ModuleType]
) -> None:
    benchmark("make_ml_1m").make(real_data("ml-1m.zip"), tmp_path / "ml-1m-strong.zip")
    assert tables(tmp_path) == tables(real_data("ml-1m-strong.zip").parent)


def test_a_curve_is_taken_again_unless_all_it_depends_on_is_the_same(
    tmp_path: Path, benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    quality, ran = benchmark("quality"), []

    def in_child(*arguments: object, **_: object) -> dict[str, object]:
        ran.append(arguments)
        return {"curve": [[1.5, 0.25]]}

    monkeypatch.setattr(quality.measure, "in_child", in_child)
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, **WHOLE)
    package = shutil.copytree(
        Path(quality.recae.__file__).parent, tmp_path / "recae", ignore=lambda *_: ["__pycache__"]
    )
    monkeypatch.setattr(quality.recae, "__file__", str(package / "__init__.py"))
    given = argparse.Namespace(data=folder, dir=tmp_path, threads=1, quick=False)

    def runs() -> int:
        assert quality.curve_of(given, "rec-vae", 0, None) == [(1.5, 0.25)]
        return len(ran)

    assert (runs(), runs()) == (1, 1)
    (package / "ranking.py").write_text("another code")
    assert (runs(), runs()) == (2, 2)
    write(folder, **{**WHOLE, "train": f"{PAIRS}7,2\n"})
    assert (runs(), runs()) == (3, 3)
    monkeypatch.setattr(quality.measure, "machine", lambda *_: "another machine, another torch")
    assert (runs(), runs()) == (4, 4)
    monkeypatch.setitem(quality.PLAIN["rec-vae"], "gamma", 0.01)
    assert (runs(), runs()) == (5, 5)


def test_fake_users_are_as_long_as_real_ones_and_all_like_one_item(benchmark: Callable[[str], ModuleType]) -> None:
    anomalies = benchmark("anomalies")
    rng = np.random.default_rng(0)
    real = csr_matrix((rng.random((600, 80)) < np.linspace(0.02, 0.6, 80)).astype(np.float32))
    lengths, popularity = np.diff(real.indptr), np.bincount(real.indices)
    for attack in anomalies.ATTACKS:
        histories, fake = anomalies.plant(real, attack, 1)
        made = histories[fake]
        assert (fake.sum(), fake[:600].sum(), abs(histories[~fake] - real).nnz) == (6, 0, 0)
        assert set(np.diff(made.indptr)) <= set(lengths)
        assert made.has_canonical_format
        assert (np.diff(made.tocsc().indptr) == 6).any()
        by_popularity = popularity[made.indices].mean() - popularity.mean()
        assert (by_popularity > 0.1 * popularity.mean()) == (attack != "random")
        assert (histories != anomalies.plant(real, attack, 1)[0]).nnz == 0
        assert (histories[fake] != anomalies.plant(real, attack, 2)[0][fake]).nnz > 0


def nothing(folder: Path) -> tuple[Path, str]:
    return folder, f"{folder}/ml-1m-strong.zip is not there"


def a_file(folder: Path) -> tuple[Path, str]:
    return write(folder, **WHOLE) / "ml-1m-strong.zip", f"{folder}/ml-1m-strong.zip is a file"


def no_zip(folder: Path) -> tuple[Path, str]:
    (folder / "ml-1m-strong.zip").write_text("not found")
    return folder, f"{folder}/ml-1m-strong.zip cannot be read (File is not a zip file)"


def another_zip(folder: Path) -> tuple[Path, str]:
    tables = {name: rows for name, rows in WHOLE.items() if name != "train"}
    return write(folder, **tables), f"{folder}/ml-1m-strong.zip has no ml-1m-strong/train.csv in it"


@pytest.mark.parametrize("name", ["sampled", "peers", "quality", "generation"])
@pytest.mark.parametrize("amiss", [nothing, a_file, no_zip, another_zip])
def test_data_that_is_amiss_is_one_line_and_code_2(
    name: str,
    amiss: Callable[[Path], tuple[Path, str]],
    tmp_path: Path,
    benchmark: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, reason = amiss(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", "--data", str(given)])
    with pytest.raises(SystemExit) as end:
        benchmark(name).main()
    told = capsys.readouterr()
    assert (end.value.code, told.out) == (2, "")
    wanted = "--data is the folder that holds ml-1m-strong.zip (see benchmarks/README.md)"
    assert told.err == f"{name}.py: {reason}; {wanted}\n"


def test_another_set_names_its_own_zip(
    tmp_path: Path,
    benchmark: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path, **WHOLE)
    monkeypatch.setattr(sys, "argv", ["sampled.py", "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        benchmark("sampled").main()
    assert f"{tmp_path}/gowalla.zip is not there; --data is the folder that holds gowalla" in capsys.readouterr().err


def test_models_are_told_over_splits_the_best_first(benchmark: Callable[[str], ModuleType]) -> None:
    found = {
        7: {"als": np.array([0.1, 0.3, np.nan]), "hybrid": np.array([0.3, 0.3, np.nan])},
        8: {"als": np.array([0.5, 0.1]), "hybrid": np.array([0.7, 0.3])},
    }
    header, _, *rows = (
        line.strip("| ").split(" | ") for line in benchmark("hybrid").over_splits(found, "hybrid").splitlines()
    )
    assert header == ["model", "7", "8", "mean", "hybrid's gain, split 7", "… all splits"]
    assert rows == [
        ["`hybrid`", "0.3000", "0.5000", "0.4000 ±0.1414", "–", "–"],
        ["`als`", "0.2000", "0.3000", "0.2500 ±0.0707", "+0.1000 ±0.0707", "+0.1500 ±0.0433"],
    ]


def test_every_model_of_a_recipe_is_judged(benchmark: Callable[[str], ModuleType]) -> None:
    sample = BENCHMARKS.parent / "pipelines" / "movielens-small.yaml"
    recipe = read_recipe(sample, {"models": {"popularity": {}, "near": {"model": "item-knn", "neighbours": 100}}})
    test, validation = (benchmark("anywhere").judge(recipe, fold) for fold in ("test", "validation"))
    assert list(test) == list(validation) == ["popularity", "near"]
    assert np.nanmean(test["near"]) > np.nanmean(test["popularity"]) + 0.1
    assert not np.array_equal(test["near"], validation["near"], equal_nan=True)
