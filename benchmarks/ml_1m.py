"""MovieLens-1M under the strong-generalisation protocol of Liang et al. 2018, ready split, in a zip.

Every benchmark that wants it takes `--data`, the folder in which it and other real data lie; none of it ships.
benchmarks/make_ml_1m.py makes it of GroupLens' archive.
"""

import argparse
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

FOLDER = Path(__file__).parents[1] / "data" / "raw"
"""Where a checkout keeps what does not ship."""

ZIP = "ml-1m-strong.zip"
TABLES = ("items", "train", "validation_tr", "validation_te", "test_tr", "test_te")
INSIDE = tuple(f"{Path(ZIP).stem}/{table}.csv" for table in TABLES)


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--data` to a benchmark's arguments."""
    parser.add_argument(
        "--data", type=Path, default=FOLDER, metavar="FOLDER", help=f"the folder with {ZIP} (see benchmarks/README.md)"
    )


def amiss(folder: Path, name: str = ZIP, inside: Sequence[str] = INSIDE) -> str | None:
    """Return in a line why a zip in the folder cannot be used, and what is wanted where; None where it can."""
    path = folder / name
    wanted = f"--data is the folder that holds {name} (see benchmarks/README.md)"
    if folder.is_file():
        return f"{folder} is a file; {wanted}"
    if not path.is_file():
        return f"{path} is not there; {wanted}"
    try:
        with zipfile.ZipFile(path) as archive:
            absent = set(inside).difference(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        return f"{path} cannot be read ({error}); {wanted}"
    return f"{path} has no {min(absent)} in it; {wanted}" if absent else None


def require(folder: Path, name: str = ZIP, inside: Sequence[str] = INSIDE) -> None:
    """End the benchmark, with that line, where something is amiss."""
    line = amiss(folder, name, inside)
    if line:
        print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)
        sys.exit(2)


def training_users(folder: Path) -> csr_matrix:
    """Return the histories that are trained on, users × items."""
    return _read(folder, "train")[0]


def fold(folder: Path, name: str) -> tuple[csr_matrix, csr_matrix]:
    """Return history and held-out of 'validation' or 'test', both users × items, the same users."""
    history, users = _read(folder, f"{name}_tr")
    return history, _read(folder, f"{name}_te", users)[0]


def _read(folder: Path, name: str, users: NDArray[np.int64] | None = None) -> tuple[csr_matrix, NDArray[np.int64]]:
    user, item = _columns(folder, name)[:2]
    items = np.unique(_columns(folder, "items")[0])
    users = np.unique(user) if users is None else users
    places = np.searchsorted(users, user), np.searchsorted(items, item)
    return csr_matrix((np.ones(len(user), np.float32), places), shape=(len(users), len(items))), users


def _columns(folder: Path, name: str) -> NDArray[np.int64]:
    with zipfile.ZipFile(folder / ZIP) as zipped, zipped.open(f"{Path(ZIP).stem}/{name}.csv") as file:
        return np.loadtxt(file, dtype=np.int64, delimiter=",", skiprows=1, ndmin=2).T
