"""Ingestion: a hundred million events of Parquet to a saved Interactions directory.

Beside it, in the same run: a bare pyarrow read of the same columns, and a dictionary encoding of users and items,
which sorts nothing and keeps nothing. Each in a process of its own, which says what it took and held.

    python benchmarks/ingestion.py                            # 100 million events, lean and full
    python benchmarks/ingestion.py --events 10_000_000
    python benchmarks/ingestion.py --ids text                 # ids that are text of 19 digits
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from measure import in_child, machine, median, peak_resident, table

USERS = ITEMS = 1_000_000
ROW_GROUP = 1 << 20
LEAN = ["user_id", "item_id"]
FULL = [*LEAN, "value", "timestamp"]
KINDS = ("scattered", "dense", "text")
"""Ids all over 63 bits (drawn, as hashes are), from 1 upwards, or the first kind spelled."""


def generate(path: Path, events: int, kind: str) -> None:
    """Write a log in the order of time: users by the 1.5th power of a uniform draw, items by its third."""
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, events, ROW_GROUP):
        size = min(ROW_GROUP, events - start)
        columns = {
            "user_id": called((USERS * rng.random(size) ** 1.5).astype(np.int64), kind),
            "item_id": called((ITEMS * rng.random(size) ** 3).astype(np.int64), kind),
            "value": pa.array(rng.integers(1, 6, size).astype(np.float32)),
            "timestamp": pa.array(1_600_000_000 + np.arange(start, start + size) // 10 + rng.integers(0, 60, size)),
        }
        piece = pa.table(columns)
        writer = writer or pa.parquet.ParquetWriter(path, piece.schema)
        writer.write_table(piece, row_group_size=ROW_GROUP)
    if writer:
        writer.close()


def called(index: np.ndarray, kind: str) -> pa.Array:
    """Return ids that do not tell how active a user or popular an item is; 7919 has no factor in common with 10^6."""
    dense = (index * 7919) % USERS + 1
    if kind == "dense":
        return pa.array(dense)
    hashed = dense.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashed = (hashed ^ (hashed >> np.uint64(shift))) * np.uint64(factor)
    scattered = pa.array((hashed >> np.uint64(1)).astype(np.int64))
    return scattered if kind == "scattered" else scattered.cast(pa.string())


def bare(path: Path, columns: list[str]) -> None:
    """Read the columns, and encode the two of ids."""
    read = pa.parquet.read_table(path, columns=columns)
    for name in LEAN:
        read[name].dictionary_encode()


def recae(path: Path, columns: list[str], out: Path) -> None:
    """Make the directory by the library's own call; what `recae data prepare` takes beyond it is not timed."""
    from recae.events import Columns, open_events
    from recae.interactions import prepare
    from recae.preparation import Preparation

    names = Columns() if columns == FULL else Columns(value="", time="")
    prepare(open_events(path, columns=names), out, Preparation(values="keep"), overwrite=True)


def child(work: str, path: Path, columns: list[str]) -> None:
    began, used = time.perf_counter(), time.process_time()
    if work == "bare":
        bare(path, columns)
    else:
        recae(path, columns, path.parent / "out")
    taken = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used, "peak": peak_resident()}
    print(json.dumps(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--ids", choices=KINDS, default="scattered")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--columns", choices=("lean", "full", "both"), default="both")
    parser.add_argument("--dir", type=Path, help="Where the log goes (about 2 GB), and twice as much of scratch.")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work, path, columns = options.child
        child(work, Path(path), FULL if columns == "full" else LEAN)
        return
    if options.dir is not None:
        options.dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ingestion-", dir=options.dir))
    try:
        log = folder / "log.parquet"
        generate(log, options.events, options.ids)
        print(machine("pyarrow", "numpy", "pandas"))
        print(f"{options.events:,} events, {options.ids} ids, {log.stat().st_size / 1e9:.1f} GB of Parquet\n")
        rows = []
        for columns in ("lean", "full") if options.columns == "both" else (options.columns,):
            taken: dict[str, list[dict[str, float]]] = {"bare": [], "recae": []}
            for _ in range(options.repeats):
                for work, each in taken.items():
                    each.append(in_child(Path(__file__), "--child", work, str(log), columns))
            seconds = {work: median([one["seconds"] for one in each]) for work, each in taken.items()}
            for work, each in taken.items():
                rows.append(
                    [
                        columns,
                        "bare read and encoding" if work == "bare" else "recae, to a saved directory",
                        f"{seconds[work]:.1f}",
                        f"{median([one['cpu'] for one in each]):.1f}",
                        f"{options.events / seconds[work] / 1e6:.1f}",
                        f"{max(one['peak'] for one in each) / 1e9:.2f}",
                        f"{seconds['bare'] / seconds[work]:.2f}",
                    ]
                )
        header = ["columns", "work", "seconds", "CPU seconds", "million events/s", "peak GB", "speed / bare"]
        print(table(header, rows))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
