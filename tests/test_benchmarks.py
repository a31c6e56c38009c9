"""The benchmarks, without the data that does not ship: a line that says what is wanted where, and code 2."""

import importlib
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a benchmark as its script would."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def write(folder: Path, **tables: str) -> Path:
    """Write a zip as the development data has it."""
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


@pytest.mark.parametrize("name", ["sampled", "peers", "quality"])
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
