"""item-knn: what finding the neighbours costs, and ranking by them, next to the same with dense rows.

    python benchmarks/neighbours.py [--data FOLDER] [--threads 2] [--repeats 3] [--quick]

Sets: ML-1M strong if it is there, and generated ones (benchmarks/scale.py's generator). The dense way adds up rows of
items × items by blocks and takes the largest of each; it is left out at DENSE_UP_TO items and more, where its n²
entries take minutes to hours. Each run is a process of its own, because memory is measured as its peak beyond the
histories, and the two take turns. Both must keep similarities that add up to the same. `--quick`: a tenth of the
generated users and items.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import forget_peak, in_child, machine, median, peak_resident, table
from ml_1m import add_argument, amiss, training_users
from scale import generate, read
from scipy.sparse import csr_matrix, vstack

from recae.models import build
from recae.ranking import top_n

COUNT = 200
GENERATED = ((20_000, 20_000), (200_000, 200_000))
DENSE_UP_TO = 50_000
RANKED, PLACES, BLOCK = 1_000, 100, 2**24
"""How many users are ranked, how far; entries that the dense way makes at a time."""


def dense(seen: csr_matrix) -> csr_matrix:
    """Return each item's COUNT most similar others as it is usually written."""
    items = seen.shape[1]
    by_item, root = seen.T.tocsr(), np.sqrt(np.asarray(seen.sum(axis=0), np.float64).ravel())
    blocks, size = [], max(1, BLOCK // items)
    for start in range(0, items, size):
        shared = (by_item[start : start + size] @ seen).toarray()
        cosine = shared / np.maximum(np.outer(root[start : start + size], root), 1e-12)
        np.fill_diagonal(cosine[:, start:], 0)
        nearest = np.argpartition(cosine, -COUNT, axis=1)[:, -COUNT:]
        rows = np.repeat(np.arange(len(cosine)), COUNT)
        kept = np.take_along_axis(cosine, nearest, axis=1).astype(np.float32).ravel()
        blocks.append(csr_matrix((kept, (rows, nearest.ravel())), shape=cosine.shape))
    return vstack(blocks).tocsr()


def work(way: str, seen: csr_matrix) -> dict[str, Any]:
    """Return what one way took in seconds and bytes, the sum of what it kept, and the seconds of ranking."""
    forget_peak()
    before, begun = peak_resident(), time.perf_counter()
    if way == "dense":
        similarity = float(dense(seen).sum(dtype=np.float64))
        return {"fit": time.perf_counter() - begun, "bytes": peak_resident() - before, "similarity": similarity}
    model: Any = build("item-knn", neighbours=COUNT).fit(seen)
    told = {"fit": time.perf_counter() - begun, "bytes": peak_resident() - before}
    begun = time.perf_counter()
    top_n(model.score, seen[:RANKED], PLACES)
    told["rank"] = time.perf_counter() - begun
    told["similarity"] = float(model.nearest_.sum(dtype=np.float64))
    return told


def row(name: str, seen: csr_matrix, runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a set's line of the table; end the benchmark where the two ways disagree."""
    middle = {way: {key: median([run[key] for run in each]) for key in each[0]} for way, each in runs.items()}
    sums = [of["similarity"] for of in middle.values()]
    if not np.allclose(sums, sums[0], rtol=1e-5):
        sys.exit(f"{name}: the similarities add up to {sums}: not the same neighbours")
    recae, plain = middle["recae"], middle.get("dense")
    meetings = int((np.diff(seen.indptr).astype(np.int64) ** 2).sum())
    return [
        f"{name}: {seen.shape[0]:,} × {seen.shape[1]:,}, {seen.nnz / 1e6:.2f} million",
        f"{meetings / 1e9:.2f}",
        f"{recae['fit']:.2f}",
        f"{recae['fit'] / meetings * 1e9:.1f}",
        f"{plain['fit']:.2f}" if plain else "–",
        f"{plain['fit'] / recae['fit']:.1f}" if plain else "–",
        f"{recae['bytes'] / 1e9:.2f} / " + (f"{plain['bytes'] / 1e9:.2f}" if plain else "–"),
        f"{recae['rank']:.2f}",
    ]


def main() -> None:
    """Run each way on each set in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_argument(parser)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3, help="of each, but the largest set is run once")
    parser.add_argument("--quick", action="store_true", help="a tenth of the generated users and items")
    parser.add_argument("--run", nargs=4, metavar=("WAY", "FOLDER", "USERS", "ITEMS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.run:
        way, folder, users, items = asked.run
        seen = read(Path(folder), int(users), int(items)) if int(users) else training_users(asked.data)
        print(json.dumps(work(way, seen)))
        return
    print(machine("torch", "numpy", "scipy"))
    print(f"{asked.threads} threads; the {COUNT} nearest of each item; ranking: {PLACES} items for {RANKED:,} users\n")
    line = amiss(asked.data)
    if line:
        print(f"{line}. Generated sets alone:\n")
    shapes = [(users // 10, items // 10) if asked.quick else (users, items) for users, items in GENERATED]
    rows = []
    for users, items in shapes if line else [(0, 0), *shapes]:
        with tempfile.TemporaryDirectory() as folder:
            if users:
                generate(Path(folder), users, items)
            seen = read(Path(folder), users, items) if users else training_users(asked.data)
            runs: dict[str, list[dict[str, Any]]] = {"recae": [], "dense": []}
            if items >= DENSE_UP_TO:
                del runs["dense"]
            for _ in range(asked.repeats if items < DENSE_UP_TO else 1):
                for way, each in runs.items():
                    sizes = ("--run", way, folder, str(users), str(items), "--threads", str(asked.threads))
                    environment = {"OMP_NUM_THREADS": str(asked.threads)}
                    each.append(in_child(Path(__file__), *sizes, "--data", str(asked.data), environment=environment))
            rows.append(row("generated" if users else "ML-1M strong", seen, runs))
    header = ["users × items, interactions", "thousand million meetings", "recae's fit, s", "ns a meeting"]
    header += ["dense fit, s", "recae is faster by", "memory beyond the histories, GB: recae / dense", "ranking, s"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
