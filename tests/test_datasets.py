"""Known data sets: downloads that go on where they broke, checks that refuse damage, and what is in a log."""

import errno
import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from recae import datasets
from recae.datasets import DATASETS, describe, fetch
from recae.errors import DataSetError, OutputError
from recae.ids import IdMap
from recae.interactions import Interactions
from recae.progress import Step

PAYLOAD = np.random.default_rng(7).bytes(1_500_000)


class Server(ThreadingHTTPServer):
    """Serves PAYLOAD at every path; `behaviour` says how badly, `requests` remembers the ranges asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.payload = PAYLOAD
        self.behaviour: dict[str, Any] = {}
        self.requests: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ml-1m.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.requests.append(asked)
        behaviour, body = self.server.behaviour, self.server.payload
        if status := behaviour.get("status"):
            self.send_error(status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and behaviour.get("ranges", True) else 0
        if start and start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if behaviour.get("length", True):
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cuts = behaviour.get("cut_after", [])
        self.wfile.write(body[start : start + cuts.pop(0)] if cuts else body[start:])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(datasets, "CHUNK", 1 << 14)
    known = replace(DATASETS["ml-1m"], md5=hashlib.md5(PAYLOAD).hexdigest())
    monkeypatch.setattr(datasets, "DATASETS", {**DATASETS, "ml-1m": known})
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def fetched(server: Server, tmp_path: Path) -> Callable[..., Path]:
    def fetch_here(**options: Any) -> Path:
        return fetch("ml-1m", tmp_path, address=server.address, **options)

    return fetch_here


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_checked_reported_and_reused(
    server: Server, fetched: Callable[..., Path], tmp_path: Path
) -> None:
    steps: list[Step] = []
    archive = fetched(listener=steps.append)
    assert archive.read_bytes() == PAYLOAD
    assert [step.done for step in steps] == sorted({step.done for step in steps})
    assert {(step.task, step.total) for step in steps} == {("fetch ml-1m", len(PAYLOAD))}
    assert steps[-1].done == len(PAYLOAD)
    assert fetched() == archive
    assert server.requests == [None]
    assert names(tmp_path) == ["ml-1m.zip"]


def test_a_damaged_archive_in_the_cache_is_fetched_again(fetched: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "ml-1m.zip").write_bytes(PAYLOAD[:-1])
    assert fetched().read_bytes() == PAYLOAD


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: Server, fetched: Callable[..., Path]) -> None:
    server.behaviour["cut_after"] = [600_000, 300_000]
    steps: list[Step] = []
    assert fetched(listener=steps.append).read_bytes() == PAYLOAD
    assert server.requests[0] is None
    starts = [int(asked.removeprefix("bytes=")[:-1]) for asked in server.requests[1:] if asked]
    assert len(starts) == 2
    assert 0 < starts[0] <= 600_000 < starts[1] <= 900_000
    assert {step.total for step in steps} == {len(PAYLOAD)}


def test_a_second_run_goes_on_from_what_the_first_left(
    server: Server, fetched: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "ATTEMPTS", 1)
    server.behaviour["cut_after"] = [1_000_000]
    with pytest.raises(DataSetError, match=r"bytes, which are kept: run again to go on; .*--data$"):
        fetched()
    assert names(tmp_path) == ["ml-1m.zip.part"]
    kept = (tmp_path / "ml-1m.zip.part").stat().st_size
    assert fetched().read_bytes() == PAYLOAD
    assert server.requests == [None, f"bytes={kept}-"]


def test_a_server_without_ranges_is_asked_once_more_for_everything(
    server: Server, fetched: Callable[..., Path], tmp_path: Path
) -> None:
    server.behaviour["ranges"] = False
    (tmp_path / "ml-1m.zip.part").write_bytes(b"x" * 1_000)
    assert fetched().read_bytes() == PAYLOAD
    assert server.requests == ["bytes=1000-"]


def test_a_process_killed_before_the_last_step_needs_no_byte_again(
    server: Server, fetched: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "ml-1m.zip.part").write_bytes(PAYLOAD)
    assert fetched().read_bytes() == PAYLOAD
    assert server.requests == [f"bytes={len(PAYLOAD)}-"]


@pytest.mark.parametrize("left", [b"", b"x" * 1_000, PAYLOAD + b"more"])
def test_a_wrong_checksum_leaves_nothing(
    server: Server, fetched: Callable[..., Path], tmp_path: Path, left: bytes
) -> None:
    server.payload = PAYLOAD[:-1] + b"?"
    (tmp_path / "ml-1m.zip.part").write_bytes(left)
    with pytest.raises(DataSetError, match=r"its MD5 is \w+, and the publisher's is .* deleted, so run again .*--data"):
        fetched()
    assert names(tmp_path) == []


def test_a_server_that_tells_no_length_is_trusted_to_the_checksum(
    server: Server, fetched: Callable[..., Path], tmp_path: Path
) -> None:
    server.behaviour.update(length=False, cut_after=[1_000])
    with pytest.raises(DataSetError, match="MD5"):
        fetched()
    assert names(tmp_path) == []
    steps: list[Step] = []
    assert fetched(listener=steps.append).read_bytes() == PAYLOAD
    assert {step.total for step in steps} == {0}


@pytest.mark.parametrize("status", [404, 503])
def test_a_refusal_names_the_status_and_the_way_out(
    server: Server, fetched: Callable[..., Path], tmp_path: Path, status: int
) -> None:
    server.behaviour["status"] = status
    with pytest.raises(DataSetError, match=rf"the server answered {status} .*--data$") as caught:
        fetched()
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_no_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(DataSetError, match=r"no connection; check the network; .*--data$"):
        fetch("ml-100k", tmp_path, address="http://127.0.0.1:9/ml-100k.zip")
    assert names(tmp_path) == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataSetError, match="unknown data set 'ml-20'; did you mean 'ml-20m'"):
        fetch("ml-20")


def test_a_full_disk_keeps_what_came_and_says_so(
    fetched: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = Path.open

    def open_on_a_full_disk(path: Path, *args: Any, **options: Any) -> Any:
        file = open_(path, *args, **options)
        if path.suffix == ".part" and args[0] != "rb":
            file = FullDisk(file)
        return file

    monkeypatch.setattr(Path, "open", open_on_a_full_disk)
    with pytest.raises(OutputError, match=r"ml-1m\.zip\.part: no space left on the disk; free some and run again"):
        fetched()
    monkeypatch.undo()
    assert names(tmp_path) == ["ml-1m.zip.part"]


class FullDisk(io.BufferedIOBase):
    """A file on a disk with room for 100,000 bytes."""

    def __init__(self, file: Any) -> None:
        self.file, self.room = file, 100_000

    def write(self, chunk: Any) -> int:
        self.room -= len(chunk)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self.file.write(chunk))

    def close(self) -> None:
        self.file.close()
        super().close()


def test_a_cache_that_cannot_be_written_is_one_line(fetched: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch("ml-1m", tmp_path / "file", address="http://127.0.0.1:9/")


def edition(ratings: int, stated: int) -> bytes:
    """Return an archive in the layout of ml-latest-small, whose README states so many ratings."""
    lines = "userId,movieId,rating,timestamp\n" + "1,1,5.0,0\n" * ratings
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml-latest-small/ratings.csv", lines)
        archive.writestr("ml-latest-small/movies.csv", "movieId,title,genres\n1,A,Drama\n")
        archive.writestr(
            "ml-latest-small/README.txt", f"It has {stated} ratings and 0 tag applications across 1 movies."
        )
    return buffer.getvalue()


def test_an_edition_that_may_change_must_agree_with_its_own_readme(server: Server, tmp_path: Path) -> None:
    server.payload = edition(3, stated=3)
    archive = fetch("ml-latest-small", tmp_path, address=server.address)
    assert archive.read_bytes() == server.payload
    assert DATASETS["ml-latest-small"].md5 is None


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (edition(2, stated=3), "its 2 ratings of 1 films are not what its README says"),
        (edition(3, stated=3)[:-40], "it is not the whole archive"),
        (b"<html>maintenance</html>", "it is not the whole archive"),
    ],
)
def test_an_edition_that_contradicts_itself_is_refused(
    server: Server, tmp_path: Path, payload: bytes, fault: str
) -> None:
    server.payload = payload
    with pytest.raises(DataSetError, match=fault):
        fetch("ml-latest-small", tmp_path, address=server.address)
    assert names(tmp_path) == []


@pytest.mark.real_data
def test_the_edition_of_2018_is_accepted(server: Server, real_data: Callable[[str], Path], tmp_path: Path) -> None:
    server.payload = real_data("ml-latest-small.zip").read_bytes()
    assert fetch("ml-latest-small", tmp_path, address=server.address).read_bytes() == server.payload


def test_every_address_is_official_and_every_benchmark_has_a_checksum() -> None:
    assert set(DATASETS) == {"ml-100k", "ml-1m", "ml-20m", "ml-25m", "ml-latest-small"}
    for name, data_set in DATASETS.items():
        assert data_set.address == f"https://files.grouplens.org/datasets/movielens/{name}.zip"
        assert (data_set.md5 is None) == ("latest" in name)


def log(rows: list[list[float]], times: list[int] | None = None) -> Interactions:
    matrix = csr_matrix(np.array(rows, dtype=np.float32))
    return Interactions(
        matrix=matrix,
        users=IdMap.of(np.arange(matrix.shape[0])),
        items=IdMap.of(np.arange(matrix.shape[1])),
        item_table=pd.DataFrame(index=range(matrix.shape[1])),
        times=None if times is None else np.array(times),
    )


def test_a_log_is_described() -> None:
    described = describe(log([[5, 1, 0, 0], [2, 0, 0, 0], [1, 3, 4, 0]], times=[9, 8, 7, 3, 2, 1]))
    assert (described.users, described.items, described.events, described.density) == (3, 4, 6, 0.5)
    assert (described.history_lengths["min"], described.history_lengths["median"]) == (1, 2)
    assert (described.item_popularity["min"], described.item_popularity["max"]) == (0, 3)
    assert (described.value_range, described.time_span) == ((1, 5), (1, 9))


def test_an_empty_log_is_described() -> None:
    described = describe(log([[0.0, 0.0]]))
    assert (described.events, described.density, described.time_span) == (0, 0, None)
    assert np.isnan(described.value_range).all()
