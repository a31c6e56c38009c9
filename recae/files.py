"""Files and directories that appear whole or not at all.

Everything is written to a temporary sibling of its target, flushed to the disk, and renamed. A process that is
killed in between leaves a `.name.*.partial` beside the target and never a half-written target.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from recae.errors import DiskFull, OutputError

UMASK = os.umask(0)
os.umask(UMASK)  # the only way to read it is to set it


LONGEST_NAME = 200
"""In bytes: file systems take 255, and what is written beside an output adds its own endings."""

METADATA_KEY = b"recae"
"""In the metadata of a Parquet file, it marks the file as ours."""


@contextmanager
def whole_file(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `target`, which takes the target's place when the block ends well."""
    refuse_existing(target, overwrite=overwrite)
    if target.is_dir():
        raise OutputError(f"{target} is a directory and the output a file; choose another place")
    with _temporary_sibling(target) as room:
        draft = room / target.name
        yield draft
        _finish(draft)
        refuse_existing(target, overwrite=overwrite)
        draft.replace(target)
        _flush(target.parent)


@contextmanager
def whole_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary directory beside `target`, which takes the target's place when the block ends well."""
    refuse_existing(target, overwrite=overwrite)
    with _temporary_sibling(target) as room:
        draft = room / target.name
        draft.mkdir()
        yield draft
        for path in sorted(draft.rglob("*"), reverse=True):
            _finish(path)
        _flush(draft)
        move_directory(draft, target, overwrite=overwrite)


def move_directory(source: Path, target: Path, *, overwrite: bool = False) -> None:
    """Rename a finished directory to `target`; what stood there before is set aside first, then removed."""
    refuse_existing(target, overwrite=overwrite)
    with _temporary_sibling(target) as room:
        replaced = room / "replaced"
        with suppress(FileNotFoundError):
            target.rename(replaced)
        try:
            source.rename(target)
        except OSError as error:
            if replaced.exists() and not target.exists():
                with suppress(OSError):  # unless another process's came in this instant: then that one stays
                    replaced.rename(target)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise OutputError(f"{target} was written by another process in the meantime; run again") from error
            raise
        _flush(target.parent)


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `target` has no name, or exists and may not be overwritten.

    Call it before hours of work, not after.
    """
    if target.name in ("", ".."):
        raise OutputError(f"{target}: give the output a name of its own, such as {target / 'result'}")
    if target.exists() and not overwrite:
        raise OutputError(
            f"{target} exists already; choose another place, or overwrite it (--overwrite, or overwrite=True in Python)"
        )
    blocking = next((parent for parent in target.parents if parent.is_file()), None)
    if blocking is not None:
        raise OutputError(f"{target}: {blocking} is in the way, a file and no directory; choose another place")


def require_place(out: Path, mark: str, *, overwrite: bool) -> None:
    """Raise OutputError unless a directory can be put at `out`; only one that holds `mark`, our own, is replaced."""
    if len(out.name.encode()) > LONGEST_NAME:
        raise OutputError(f"{out.name[:40]}…: this name is too long for a directory; choose a shorter one")
    refuse_existing(out, overwrite=overwrite)
    if out.exists() and not (out / mark).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out} was not written by this command ({mark} is not in it): choose another place")


def require_table_place(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError unless a table can be put at `path`: call it before the work, not after."""
    written = "tables are written as Parquet"
    require_file_place(path, (".parquet", ".pq"), written, "table", _is_our_table, overwrite=overwrite)


def require_file_place(
    path: Path,
    suffixes: tuple[str, ...],
    written: str,
    such_as: str,
    is_ours: Callable[[Path], bool],
    *,
    overwrite: bool,
) -> None:
    """Raise OutputError unless a file of these suffixes can be put at `path`; only one of our own is replaced."""
    if path.suffix not in suffixes:
        raise OutputError(f"{path}: {written}; give it a name that ends in {suffixes[0]}")
    if path.is_dir():
        raise OutputError(f"{path} is a directory; name a file in it, such as {path / (such_as + suffixes[0])}")
    refuse_existing(path, overwrite=overwrite)
    if path.exists() and not is_ours(path):
        raise OutputError(f"{path} was not written by this command: choose another place")


def _is_our_table(path: Path) -> bool:
    import pyarrow as pa  # late, as most places are empty: what is refused is refused at once
    import pyarrow.parquet as pq

    try:
        return METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _temporary_sibling(target: Path) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        _refuse_full(target, error)
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    try:
        yield room
    except (OSError, SafetensorError) as error:
        _refuse_full(target, error)
        raise
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _refuse_full(target: Path, error: Exception) -> None:
    """Raise OutputError where an error says that no more may be written, DiskFull where no more can be.

    pyarrow and safetensors may keep only the text of the system's error.
    """
    if (isinstance(error, OSError) and error.errno == errno.EFBIG) or "File too large" in str(error):
        raise OutputError(
            f"{target}: larger than a file may be here; nothing was written there; raise the limit (ulimit -f)"
        ) from error
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in str(error):
        raise DiskFull(
            f"{target}: no space left on the disk; nothing was written there; free some and run again"
        ) from error


def _finish(path: Path) -> None:
    """Give a file the rights that this process's files have: a library may have made it for its owner alone."""
    if path.is_file():
        path.chmod(0o666 & ~UMASK)
    _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
