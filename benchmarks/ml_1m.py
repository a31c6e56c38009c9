"""MovieLens-1M under the strong-generalisation protocol, as the development data has it: ready split, in a zip."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

DATA = Path(__file__).parents[2] / "shared" / "data" / "ml-1m-strong.zip"
"""Where a checkout of the project's workplace has it."""


def training_users(path: Path) -> csr_matrix:
    """Return the histories that are trained on, users × items."""
    return _read(path, "train")[0]


def fold(path: Path, name: str) -> tuple[csr_matrix, csr_matrix]:
    """Return history and held-out of 'validation' or 'test', both users × items, the same users."""
    history, users = _read(path, f"{name}_tr")
    return history, _read(path, f"{name}_te", users)[0]


def _read(path: Path, name: str, users: NDArray[np.int64] | None = None) -> tuple[csr_matrix, NDArray[np.int64]]:
    user, item = _columns(path, name)[:2]
    items = np.unique(_columns(path, "items")[0])
    users = np.unique(user) if users is None else users
    places = np.searchsorted(users, user), np.searchsorted(items, item)
    return csr_matrix((np.ones(len(user), np.float32), places), shape=(len(users), len(items))), users


def _columns(path: Path, name: str) -> list[NDArray[np.int64]]:
    with zipfile.ZipFile(path) as zipped, zipped.open(f"{path.stem}/{name}.csv") as file:
        _, *rows = csv.reader(io.TextIOWrapper(file, "utf-8"))
    return [np.array(column, np.int64) for column in zip(*rows, strict=True)]
