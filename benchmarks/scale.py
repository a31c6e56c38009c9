"""A million items: training on a sample of the catalogue, ranking, export; seconds, and memory of a process each.

    python benchmarks/scale.py [--quick] [--threads 2] [--negatives 4096]

Histories are generated: 200,000 users × 1,000,000 items, 20,000,000 interactions, lengths lognormal about a mean of
100, the popularity of the n-th item proportional to n^-0.75. The model is Mult-DAE with a bottleneck of 128 and no
other hidden layer: two tables of 1,000,000 × 128 weights. Every figure is of a process of its own, and `resident` is
the most that it ever had in memory, reading the histories and writing the results included. `--quick` takes a tenth of
the users and of the items.

The cost of an epoch is taken at five numbers of users and one catalogue, and an exponent fitted: 1 is linear. The last
table is the price of the whole softmax at this size: some updates, one by one.

It takes 9 GB of a temporary folder.
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix

from recae.artifact import load_model, save_model
from recae.embedding import embed_users
from recae.ids import IdMap
from recae.interactions import Interactions
from recae.models import build
from recae.ranking import top_n
from recae.tables import embeddings, write_table

USERS, ITEMS, MEAN_LENGTH = 200_000, 1_000_000, 100
SPREAD = 1.0
"""The standard deviation of the logarithm of a history's length."""

LONGEST = 5_000
SKEW = 4
"""Item floor(items · u^SKEW) for a uniform u: the n-th most popular has a share proportional to n^(1/SKEW - 1)."""

BLOCK = 10_000
"""How many users are generated at a time."""

LATENT, BATCH, RANKED, PLACES, UPDATES = 128, 500, 10_000, 100, 3


def generate(folder: Path, users: int, items: int) -> int:
    """Write indptr and indices of histories into a folder; return how many interactions there are."""
    rng = np.random.default_rng(0)
    names = rng.permutation(items).astype(np.int32)  # so that popular items lie anywhere
    # Some are drawn twice by a user and count once: a little more is drawn.
    scale = 1.06 * MEAN_LENGTH / math.exp(SPREAD**2 / 2)
    parts, lengths = [], []
    for start in range(0, users, BLOCK):
        count = min(BLOCK, users - start)
        drawn = np.clip(scale * rng.lognormal(sigma=SPREAD, size=count), 2, LONGEST).astype(np.int64)
        user = np.repeat(np.arange(count), drawn)
        cells = np.unique(user * items + names[(items * rng.random(len(user)) ** SKEW).astype(np.int64)])
        parts.append((cells % items).astype(np.int32))
        lengths.append(np.bincount(cells // items, minlength=count))
    indptr = np.concatenate([[0], np.concatenate(lengths).cumsum()])
    np.save(folder / "indptr.npy", indptr)
    np.save(folder / "indices.npy", np.concatenate(parts))
    return int(indptr[-1])


def read(folder: Path, users: int, items: int) -> csr_matrix:
    """Return the histories of the first users."""
    indptr = np.load(folder / "indptr.npy")[: users + 1]
    indices = np.load(folder / "indices.npy", mmap_mode="r")[: indptr[-1]]
    return csr_matrix((np.ones(len(indices), np.float32), np.array(indices), indptr), shape=(users, items))


def train(folder: Path, users: int, items: int, negatives: int, keep: bool) -> dict[str, Any]:
    """Train two epochs; tell their seconds, and all of the seconds with what comes before the first."""
    histories = read(folder, users, items)
    model: Any = build("mult-dae", latent=LATENT, negatives=negatives, batch_size=BATCH, epochs=2)
    begun = time.perf_counter()
    model.fit(histories)
    told = {
        "seconds": [figures["seconds"] for figures in model.training_.curve],
        "whole": time.perf_counter() - begun,
        "interactions": histories.nnz,
        "updates": model.training_.updates // 2,
    }
    if keep:
        begun = time.perf_counter()
        names = IdMap(pd.RangeIndex(users)), IdMap(pd.RangeIndex(items))
        save_model(folder / "model", model, Interactions(histories, *names, pd.DataFrame(index=range(items))), seed=0)
        told["saved"] = time.perf_counter() - begun
    return told


def rank(folder: Path, users: int, items: int) -> dict[str, Any]:
    """Rank the whole catalogue for some of the users."""
    histories = read(folder, users, items)
    model = load_model(folder / "model").model
    begun = time.perf_counter()
    top = top_n(model.score, histories, PLACES)
    return {"seconds": time.perf_counter() - begun, "rows": int((top.items >= 0).sum())}


def export(folder: Path, users: int, items: int) -> dict[str, Any]:
    """Write the embeddings of all users and of all items."""
    histories = read(folder, users, items)
    model: Any = load_model(folder / "model").model
    begun = time.perf_counter()
    vectors = embed_users(model, histories)
    write_table(folder / "users.parquet", embeddings(vectors, IdMap(pd.RangeIndex(users)), "user_id"))
    vectors = model.embed_items().numpy()
    write_table(folder / "items.parquet", embeddings(vectors, IdMap(pd.RangeIndex(items)), "item_id"))
    return {"seconds": time.perf_counter() - begun, "rows": users + items}


def main() -> None:
    """Run one piece of work, if it is named, or all of them in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--negatives", type=int, default=4096)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--users", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--items", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work is None:
        report(asked)
        return
    torch.set_num_threads(asked.threads)
    size = (asked.folder, asked.users, asked.items)
    match asked.work:
        case "train":
            told = train(*size, asked.negatives, keep=False)
        case "train and keep":
            told = train(*size, asked.negatives, keep=True)
        case "rank":
            told = rank(*size)
        case _:
            told = export(*size)
    print(json.dumps(told | {"resident": measure.peak_resident()}))


def report(asked: argparse.Namespace) -> None:
    """Run everything and print the tables."""
    users, items = (size // 10 if asked.quick else size for size in (USERS, ITEMS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        interactions = generate(folder, users, items)
        print(measure.machine("torch", "numpy", "scipy"), f"\n{asked.threads} threads")
        print(
            f"{users:,} users × {items:,} items, {interactions:,} interactions, generated in "
            f"{time.perf_counter() - begun:.0f} s; mult-dae, latent {LATENT}, batch {BATCH}, "
            f"negatives {asked.negatives}\n"
        )

        def child(work: str, count: int, negatives: int = asked.negatives) -> dict[str, Any]:
            sizes = ("--folder", str(folder), "--users", str(count), "--items", str(items))
            settings = ("--negatives", str(negatives), "--threads", str(asked.threads))
            return measure.in_child(
                Path(__file__), "--work", work, *sizes, *settings, environment={"OMP_NUM_THREADS": str(asked.threads)}
            )

        sizes = [users // 16, users // 8, users // 4, users // 2]
        runs = [child("train", size) for size in sizes] + [child("train and keep", users)]
        whole = runs[-1]
        ranked, exported = child("rank", min(RANKED, users)), child("export", users)
        rows = [
            (f"an epoch of {users:,} users", whole["seconds"][-1], whole),
            (f"the best {PLACES} of {items:,} items for {min(RANKED, users):,} users", ranked["seconds"], ranked),
            (f"vectors of {users:,} users and {items:,} items, to Parquet", exported["seconds"], exported),
        ]
        print(
            measure.table(
                ("work", "seconds", "resident"),
                [(what, f"{seconds:.1f}", f"{told['resident'] / 1e9:.2f} GB") for what, seconds, told in rows],
            )
        )
        print(
            f"\nTwo epochs with all that comes before: {whole['whole']:.1f} s, the first {whole['seconds'][0]:.1f} s; "
            f"writing the model directory {whole['saved']:.1f} s.\n"
        )
        slope, _ = np.polyfit(
            np.log([run["interactions"] for run in runs]), np.log([run["seconds"][-1] for run in runs]), 1
        )
        print(
            measure.table(
                ("users", "interactions", "updates", "seconds an epoch", "microseconds an interaction"),
                [
                    (
                        f"{size:,}",
                        f"{run['interactions']:,}",
                        run["updates"],
                        f"{run['seconds'][-1]:.2f}",
                        f"{1e6 * run['seconds'][-1] / run['interactions']:.2f}",
                    )
                    for size, run in zip([*sizes, users], runs, strict=True)
                ],
            )
        )
        print(f"\nseconds ~ interactions^{slope:.3f}\n")
        softmax = child("train", UPDATES * BATCH, negatives=0)
        rows = [("whole softmax", softmax), (f"{asked.negatives} negatives", whole)]
        print(
            measure.table(
                ("likelihood", "seconds an update", "resident"),
                [
                    (what, f"{run['seconds'][-1] / run['updates']:.3f}", f"{run['resident'] / 1e9:.2f} GB")
                    for what, run in rows
                ],
            )
        )


if __name__ == "__main__":
    main()
