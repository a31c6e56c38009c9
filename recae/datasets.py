"""Known public data sets: where they are, how they are checked, on what terms; and what is in a log."""

import errno
import hashlib
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import platformdirs
import requests
from numpy.typing import NDArray

from recae.errors import DataSetError, DiskFull, OutputError, nearest
from recae.interactions import Interactions
from recae.progress import Listener, Step, silence

GROUPLENS = "https://files.grouplens.org/datasets/movielens"

RESEARCH = "research only, with acknowledgement; no redistribution, no commercial use without permission"
SHARED = (
    "research only, with acknowledgement; redistribution under the same terms, no commercial use without permission"
)

CHUNK = 1 << 18  # bytes read and written at a time
TIMEOUT = (10, 60)  # seconds to connect, seconds of silence
ATTEMPTS = 4  # how often one fetch takes up a broken download


@dataclass(frozen=True)
class DataSet:
    """A public data set: an archive at `address`, of `events` by `users` on `items` (those with an event).

    `md5` is what the publisher prints beside the archive, or None where the archive changes under one name: then it
    is checked against what its own README says of it, and the counts here are those of one edition.
    """

    name: str
    address: str
    md5: str | None
    events: int
    users: int
    items: int
    terms: str


def _movielens(name: str, md5: str | None, events: int, users: int, items: int, terms: str) -> DataSet:
    return DataSet(name, f"{GROUPLENS}/{name}.zip", md5, events, users, items, terms)


DATASETS: Mapping[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        _movielens("ml-100k", "0e33842e24a9c977be4e0107933c0723", 100_000, 943, 1_682, RESEARCH),
        _movielens("ml-1m", "c4d9eecfca2ab87c1945afe126590906", 1_000_209, 6_040, 3_706, RESEARCH),
        _movielens("ml-20m", "cd245b17a1ae2cc31bb14903e1204af3", 20_000_263, 138_493, 26_744, RESEARCH),
        _movielens("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada", 25_000_095, 162_541, 59_047, RESEARCH),
        _movielens("ml-latest-small", None, 100_836, 610, 9_724, SHARED),
    )
}


def default_cache() -> Path:
    """Return this platform's folder for downloads that may be deleted and fetched again."""
    return platformdirs.user_cache_path("recae")


def fetch(name: str, cache: Path | None = None, *, address: str | None = None, listener: Listener = silence) -> Path:
    """Download a known data set into the cache unless it is there already, and return its archive.

    The bytes arrive in a `.part` file beside the target, from which an interrupted download goes on; it takes its
    name when it has passed its check. `address` is another place to fetch the same archive from. The listener hears
    bytes done, of bytes in all (0 where the server does not say).

    Raises DataSetError (an unknown name, no network, a refusal of the server, a wrong checksum), OutputError (a full
    disk, a cache that cannot be written).
    """
    if name not in DATASETS:
        raise DataSetError(f"unknown data set '{name}'{nearest(name, DATASETS)}")
    data_set = DATASETS[name]
    address = address or data_set.address
    archive = (cache or default_cache()) / f"{name}.zip"
    part = archive.with_name(f"{archive.name}.part")
    try:
        if archive.exists() and not _fault(archive, data_set):
            return archive
        archive.parent.mkdir(parents=True, exist_ok=True)
        _download(address, part, task=f"fetch {name}", listener=listener)
        if fault := _fault(part, data_set):
            part.unlink()
            raise DataSetError(f"{address}: {fault}; the download was deleted, so run again to start afresh{_OR_LOCAL}")
        part.replace(archive)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(
                f"{part}: no space left on the disk; free some and run again: the download goes on from there"
            ) from error
        raise OutputError(f"{part}: cannot be written ({error.strerror or error})") from error
    return archive


_OR_LOCAL = "; or get the file by other means and pass its path with --data"


def _download(address: str, part: Path, *, task: str, listener: Listener) -> None:
    """Bring `part` to its full length; a broken connection is taken up again while it still brings bytes."""
    for _ in range(ATTEMPTS):
        before = _size(part)
        try:
            _receive(address, part, task=task, listener=listener)
        except requests.HTTPError as error:
            answer = f"{error.response.status_code} {error.response.reason}"
            raise DataSetError(f"{address}: the server answered {answer}; try later{_OR_LOCAL}") from error
        except requests.RequestException as error:
            broken = error
            if _size(part) == before:
                break
        else:
            return
    kept = f" after {_size(part):,} bytes, which are kept: run again to go on" if _size(part) else ""
    raise DataSetError(f"{address}: no connection{kept or '; check the network'}{_OR_LOCAL}") from broken


def _receive(address: str, part: Path, *, task: str, listener: Listener) -> None:
    """Receive the bytes that `part` lacks, or all of them from a server that cannot send a range."""
    done = _size(part)
    headers = {"Accept-Encoding": "identity"}  # a range of compressed bytes would be of no use
    if done:
        headers["Range"] = f"bytes={done}-"
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if done and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is lacking; the check that follows says whether too much is there
        response.raise_for_status()
        goes_on = response.status_code == requests.codes.partial_content
        done = done if goes_on else 0
        length = int(response.headers.get("Content-Length", 0))
        total = done + length if length else 0
        with part.open("ab" if goes_on else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                done += len(chunk)
                listener(Step(task, done, total))
            file.flush()
            os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fault(archive: Path, data_set: DataSet) -> str:
    """Return what is wrong with an archive, or an empty string."""
    if data_set.md5 is None:
        return _contradiction(archive, data_set.name)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    return "" if digest == data_set.md5 else f"its MD5 is {digest}, and the publisher's is {data_set.md5}"


def _contradiction(archive: Path, name: str) -> str:
    """Return where a MovieLens archive contradicts the counts in its own README, or an empty string."""
    try:
        with ZipFile(archive) as files:
            ratings, films, readme = (
                files.read(f"{name}/{file}") for file in ("ratings.csv", "movies.csv", "README.txt")
            )
    except (BadZipFile, KeyError, zlib.error, EOFError) as error:
        return f"it is not the whole archive ({error})"
    stated = re.search(rb"(\d+) ratings and \d+ tag applications across (\d+) movies", readme)
    found = ratings.count(b"\n") - 1, films.count(b"\n") - 1
    if stated is None or found != tuple(int(count) for count in stated.groups()):
        return f"its {found[0]:,} ratings of {found[1]:,} films are not what its README says"
    return ""


QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Description:
    """What is in a log: sizes, and quantiles (named as in QUANTILES) of what varies over users and items.

    `density` is the share of the matrix that is filled; `history_lengths` is items per user and `item_popularity`
    users per item; `value_range` is the least and the greatest value; `time_span` the first and the last time, in the
    unit of the log, or None where it has none.
    """

    users: int
    items: int
    events: int
    density: float
    history_lengths: Mapping[str, float]
    item_popularity: Mapping[str, float]
    value_range: tuple[float, float]
    time_span: tuple[float, float] | None


def describe(interactions: Interactions) -> Description:
    """Describe interactions; quantiles of nothing are empty, and the range of no values is (nan, nan)."""
    matrix, times = interactions.matrix, interactions.times
    users, items = matrix.shape
    return Description(
        users=users,
        items=items,
        events=matrix.nnz,
        density=matrix.nnz / max(1, users * items),
        history_lengths=_quantiles(np.diff(matrix.indptr)),
        item_popularity=_quantiles(np.bincount(matrix.indices, minlength=items)),
        value_range=_range(matrix.data) or (np.nan, np.nan),
        time_span=None if times is None else _range(times),
    )


def _quantiles(numbers: NDArray[np.integer]) -> dict[str, float]:
    if not len(numbers):
        return {}
    return dict(zip(QUANTILES, np.quantile(numbers, list(QUANTILES.values())).tolist(), strict=True))


def _range(numbers: NDArray[np.number]) -> tuple[float, float] | None:
    return (numbers.min().item(), numbers.max().item()) if len(numbers) else None
