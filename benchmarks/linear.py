"""EASE: the Gram matrix, its inverse and the memory they take, next to the plain version and to the arithmetic alone.

    python benchmarks/linear.py [--data FOLDER]    ML-1M if it is there, and 8,000 generated items
    python benchmarks/linear.py --items 20108      what EASE is usually timed on, without the plain version
    python benchmarks/linear.py --items 20108 --full --plain      with as many users as ML-20M, against everything

The plain version is scipy's XᵀX, made dense in float64, and numpy's inverse. Each fit has a process of its own, because
memory is measured as its peak, and they take turns. The floor is n³ multiplications and additions at the rate that
products of float32 matrices reach in the same process. Generated histories have lengths of 73 in the mean, and items
that are chosen by a power of their rank.
"""

import argparse
import json
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import forget_peak, in_child, machine, median, peak_resident, table
from ml_1m import add_argument, amiss, training_users
from scipy.sparse import csr_matrix

from recae.kernels import gram, inverse
from recae.models.linear import weights

L2 = 400.0
MEAN_LENGTH = 73
PLAIN_UP_TO = 10_000
"""Beyond so many items the plain version takes minutes and tens of gigabytes: it is asked for with --plain."""


def generated(users: int, items: int, seed: int = 7) -> csr_matrix:
    """Return histories of ones: lengths log-normal, items drawn by (rank + 30)^-0.9; the same for the same numbers."""
    random = np.random.default_rng(seed)
    lengths = random.lognormal(math.log(MEAN_LENGTH) - 0.5, 1.0, users).clip(5, items // 4).astype(np.int64)
    share = (np.arange(items) + 30.0) ** -0.9
    chosen = np.searchsorted(np.cumsum(share / share.sum()), random.random(lengths.sum())).clip(max=items - 1)
    rows = np.repeat(np.arange(users), lengths)
    seen = csr_matrix((np.ones(len(rows), np.float32), (rows, random.permutation(items)[chosen])), shape=(users, items))
    seen.sum_duplicates()
    seen.data.fill(1.0)
    return seen


def recae(seen: csr_matrix) -> Iterator[float]:
    """Yield when the Gram matrix, the inverse and the weights are there."""
    matrix = gram.gram(seen)
    yield time.perf_counter()
    matrix.diagonal().add_(L2)
    inverse.invert(matrix)
    yield time.perf_counter()
    weights(matrix, torch.zeros(len(matrix)))
    yield time.perf_counter()


def plain(seen: csr_matrix) -> Iterator[float]:
    """Yield the same of the way it is usually written."""
    matrix = (seen.T @ seen).toarray().astype(np.float64)
    yield time.perf_counter()
    matrix[np.diag_indices(len(matrix))] += L2
    inverted = np.linalg.inv(matrix)
    yield time.perf_counter()
    np.fill_diagonal(inverted / -np.diag(inverted), 0)
    yield time.perf_counter()


def fit(name: str, users: int, items: int, folder: Path) -> dict[str, Any]:
    """Return what one fit took in seconds and bytes, and what n³ multiplications and additions would."""
    seen = generated(users, items) if users else training_users(folder)
    # What the first product of a process sets up is not the fit's.
    way = {"recae": recae, "plain": plain}[name]
    deque(way(seen[:100, :50]), maxlen=0)
    forget_peak()
    before = peak_resident()
    times = [time.perf_counter(), *way(seen)]
    taken = peak_resident() - before
    first, second, third = np.diff(times).tolist()
    size = seen.shape[1]
    return {
        "users": seen.shape[0],
        "items": size,
        "interactions": seen.nnz,
        "pairs": int((np.diff(seen.indptr).astype(np.int64) ** 2).sum()),
        "gram": first,
        "inverse": second,
        "total": first + second + third,
        "bytes": taken,
        "floor": size**3 / product_rate(),
    }


def product_rate(size: int = 3000) -> float:
    """Return the multiplications and additions (one each, two in all, for each entry of a row and column) a second."""
    left, right = torch.rand(size, size), torch.rand(size, size)
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds)


def in_turn(data: dict[str, tuple[int, int]], plain_up_to: int, repeats: int, folder: Path) -> list[list[object]]:
    """Return a row of the table for each fit of each data set."""
    rows = []
    for label, (users, items) in data.items():
        names = ["recae", "plain"] if items <= plain_up_to else ["recae"]
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(repeats):
            for name in names:
                runs[name].append(
                    in_child(Path(__file__), "--data", str(folder), "--fit", name, str(users), str(items))
                )
        total = {name: median([run["total"] for run in runs[name]]) for name in names}
        for name in names:
            middle = {key: median([run[key] for run in runs[name]]) for key in runs[name][0]}
            rows.append(
                [
                    f"{label}: {middle['users']:,.0f} × {middle['items']:,.0f}, {middle['interactions']:,.0f}",
                    name,
                    f"{middle['gram']:.2f}",
                    f"{middle['gram'] / middle['pairs'] * 1e9:.2f}",
                    f"{middle['inverse']:.2f}",
                    f"{middle['inverse'] / middle['floor']:.2f}",
                    f"{middle['total']:.2f}",
                    f"{total.get('plain', math.nan) / total[name]:.1f}" if "plain" in names else "",
                    f"{middle['bytes'] / 1e9:.2f}",
                    f"{middle['bytes'] / middle['items'] ** 2:.1f}",
                ]
            )
    return rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_argument(arguments)
    arguments.add_argument("--items", type=int, default=8000, help="generated items (default: 8,000)")
    arguments.add_argument("--full", action="store_true", help="136,677 generated users, as in ML-20M, not 30,000")
    arguments.add_argument("--plain", action="store_true", help=f"the plain version beyond {PLAIN_UP_TO:,} items too")
    arguments.add_argument("--repeats", type=int, help="of each fit (default: 3; beyond 10,000 items 1)")
    arguments.add_argument("--fit", nargs=3, metavar=("NAME", "USERS", "ITEMS"), help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.fit:
        name, users, items = asked.fit
        print(json.dumps(fit(name, int(users), int(items), asked.data)))
        return
    users = 136_677 if asked.full else 30_000
    large = asked.items > PLAIN_UP_TO
    print(machine("torch", "scipy", "numpy"), end="\n\n")
    data = {"generated": (users, asked.items)}
    if not large:
        data = {"generated, half": (users, asked.items // 2), **data}
    if not large and (line := amiss(asked.data)):
        print(f"{line}. Generated sets alone:\n")
    elif not large:
        data = {"ML-1M": (0, 0), **data}
    header = ["users × items, interactions", "", "Gram, s", "ns a pair", "inverse, s", "× floor", "fit, s"]
    header += ["times as fast", "memory, GB", "bytes an entry"]
    rows = in_turn(data, asked.items if asked.plain else PLAIN_UP_TO, asked.repeats or (1 if large else 3), asked.data)
    print(table(header, rows))


if __name__ == "__main__":
    main()
