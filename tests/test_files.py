"""What is written is whole or absent: after an error, a full disk, a kill, and among several writers."""

import errno
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from recae.errors import DiskFull, OutputError
from recae.files import move_directory, sha256, whole_directory, whole_file

OLD, NEW = "old\n", "new\n"


def write_file(target: Path, text: str = NEW, *, overwrite: bool = False) -> None:
    with whole_file(target, overwrite=overwrite) as draft:
        draft.write_text(text)


def write_directory(target: Path, text: str = NEW, *, overwrite: bool = False) -> None:
    with whole_directory(target, overwrite=overwrite) as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "b.txt").write_text(text)
        (draft / "a.txt").write_text(text)


def texts(target: Path) -> set[str]:
    """Return the distinct contents of a file, or of all files that a whole directory must have."""
    if target.is_file():
        return {target.read_text()}
    return {(target / "a.txt").read_text(), (target / "deep" / "b.txt").read_text()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


each_kind = pytest.mark.parametrize("write", [write_file, write_directory])


@each_kind
def test_it_is_written_and_nothing_else_stays(write, tmp_path):
    target = tmp_path / "new folder" / "out"
    write(target)
    assert texts(target) == {NEW}
    assert names(target.parent) == ["out"]


@each_kind
def test_what_exists_is_refused_before_any_work_unless_overwritten(write, tmp_path):
    target = tmp_path / "out"
    write(target, OLD)
    said = r"out exists already; choose another place, or overwrite it \(--overwrite, or overwrite=True in Python\)$"
    with pytest.raises(OutputError, match=said):
        write(target)
    assert texts(target) == {OLD}
    write(target, overwrite=True)
    assert texts(target) == {NEW}
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("whole", [whole_file, whole_directory])
def test_what_appears_in_the_meantime_is_refused_too(whole, tmp_path):
    target = tmp_path / "out"
    with pytest.raises(OutputError, match="exists already"), whole(target) as draft:
        (draft if draft.is_dir() else draft.parent).joinpath("out").write_text(NEW)
        target.write_text(OLD)
    assert target.read_text() == OLD
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("whole", [whole_file, whole_directory])
@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt(), OSError(errno.EIO, "broken disk")])
def test_an_error_leaves_what_was_there_and_passes_on(whole, error, tmp_path):
    target = tmp_path / "out"
    with pytest.raises(type(error)), whole(target) as draft:
        (draft / "a.txt" if draft.is_dir() else draft).write_text(NEW)
        raise error
    assert names(tmp_path) == []

    target.write_text(OLD)
    with pytest.raises(type(error)), whole(target, overwrite=True):
        raise error
    assert target.read_text() == OLD
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("whole", [whole_file, whole_directory])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        pa.ArrowIOError("Error writing bytes to file. Detail: [errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_one_line_that_says_what_to_do(whole, error, tmp_path):
    with (
        pytest.raises(DiskFull, match=r"^\S+out: no space left on the disk; nothing was written there; .*again$"),
        whole(tmp_path / "out"),
    ):
        raise error
    assert names(tmp_path) == []


@each_kind
def test_a_disk_that_is_full_from_the_start_is_said_to_be_so(write, tmp_path, monkeypatch):
    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("recae.files.tempfile.mkdtemp", full)
    with pytest.raises(DiskFull, match=r"out: no space left on the disk"):
        write(tmp_path / "out")


@each_kind
@pytest.mark.parametrize("place", [Path(), Path("/")])
def test_an_output_has_a_name(write, place):
    with pytest.raises(OutputError, match=r"give the output a name of its own, such as .*result$"):
        write(place)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EFBIG, "File too large"), pa.ArrowIOError("Error writing. Detail: [errno 27] File too large")],
)
def test_a_file_beyond_the_limit_is_one_line(error, tmp_path):
    larger = pytest.raises(OutputError, match=r"out: larger than a file may be here; .*\(ulimit -f\)$")
    with larger, whole_file(tmp_path / "out"):
        raise error


@each_kind
def test_a_place_that_cannot_be_written_is_the_users_error(write, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"out: .*file is in the way, a file and no directory; choose"):
        write(tmp_path / "file" / "out")


def test_a_file_never_takes_the_place_of_a_directory(tmp_path):
    write_directory(tmp_path / "out", OLD)
    with pytest.raises(OutputError, match=r"out is a directory and the output a file; choose another place$"):
        write_file(tmp_path / "out", overwrite=True)
    assert texts(tmp_path / "out") == {OLD}


@each_kind
def test_concurrent_writers_leave_one_of_their_results_whole(write, tmp_path):
    target = tmp_path / "out"
    write(target, "0")
    contents = [str(number) for number in range(8)]

    def keep_writing(text):
        for _ in range(10):
            with suppress(OutputError):  # another was quicker, and this one is told so
                write(target, text, overwrite=True)

    writers = [threading.Thread(target=keep_writing, args=[text]) for text in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(texts(target)) == 1
    assert texts(target) <= set(contents)
    assert names(tmp_path) == ["out"]


def test_what_was_replaced_comes_back_if_the_new_cannot_take_its_place(tmp_path):
    write_directory(tmp_path / "out", OLD)
    with pytest.raises(FileNotFoundError):
        move_directory(tmp_path / "missing", tmp_path / "out", overwrite=True)
    assert texts(tmp_path / "out") == {OLD}
    assert names(tmp_path) == ["out"]


# Each child rewrites the target until it is killed at a random moment; what it leaves must be whole. The children are
# forked off one process that has everything imported, so that many can be killed in a second.
KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from tests_of_files import texts, write_directory, write_file

write, target = globals()[sys.argv[1]], Path(sys.argv[2])
seen, kills = set(), 0
while len(seen) < 10 or kills < 30:
    kills += 1
    child = os.fork()
    if not child:
        for count in range(1_000_000):
            write(target, f"{kills} {count} " * 20_000, overwrite=True)
    time.sleep(random.uniform(0.002, 0.04))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if target.exists():
        (text,) = texts(target)
        assert text == text[: len(text) // 20_000] * 20_000
        seen.add(text)
"""


@each_kind
def test_a_kill_at_any_moment_leaves_the_target_whole_or_absent(write, tmp_path):
    script = KILLS.replace("tests_of_files", Path(__file__).stem)
    command = [sys.executable, "-c", script, write.__name__, str(tmp_path / "out")]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@each_kind
def test_a_file_made_for_its_owner_alone_gets_the_usual_rights(write, tmp_path):
    usual = tmp_path / "usual"
    usual.touch()

    def private(target: Path) -> None:
        with (whole_file if write is write_file else whole_directory)(target) as draft:
            file = draft if write is write_file else draft / "a.txt"
            file.touch(mode=0o600)

    private(tmp_path / "out")
    file = tmp_path / "out" if write is write_file else tmp_path / "out" / "a.txt"
    assert file.stat().st_mode == usual.stat().st_mode


def test_a_checksum_is_sha_256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")  # the example of FIPS 180
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
