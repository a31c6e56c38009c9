"""Training: an epoch of Mult-VAE 600-200 on a CPU, batch 500, against plain dense PyTorch.

    python benchmarks/training.py [--data FOLDER] [--epochs 7] [--quick]

An epoch is the pass over the users alone, without validation and checkpoint: recae's is timed by its own training loop,
through `MultVAE.fit`. After each of its epochs, one of the plain model and the three products of its output layer
are timed, so that all three see the same machine. --quick: fewer users and epochs.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from measure import in_child, machine, median, peak_resident, table
from ml_1m import add_argument, amiss, training_users
from plain import PlainMultVAE, train_epoch
from scipy.sparse import csr_matrix

from recae.models.base import FitOptions
from recae.models.mult_vae import MultVAE
from recae.progress import Step

HIDDEN, BATCH = 600, 500
ITEMS, PER_USER = 20_108, 73
"""The generated set: MovieLens-20M's catalogue and its interactions a user, under the usual protocol."""


ML_1M, GENERATED = "ML-1M strong", "generated"
GOALS = {ML_1M: 2.2, GENERATED: 2.8}
"""How many times faster than plain PyTorch an epoch is to be, at least."""
OF_PRODUCTS = 1.25
"""How many times as long as its three output-layer products an epoch may take, at most."""


def generated(users: int, seed: int = 0) -> csr_matrix:
    """Return histories of PER_USER interactions on average, a few long and many short, of skewed popularity."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(10, ITEMS + 10) ** 0.8
    steps = np.cumsum(popularity / popularity.sum())
    lengths = 5 + rng.exponential(PER_USER - 5, users).astype(int)
    histories = []
    for length in lengths:
        drawn = np.minimum(np.searchsorted(steps, rng.random(3 * length)), ITEMS - 1)
        _, first = np.unique(drawn, return_index=True)
        histories.append(np.sort(drawn[np.sort(first)[:length]]))
    indptr = np.cumsum([0, *map(len, histories)])
    indices = np.concatenate(histories)
    return csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=(users, ITEMS))


def three_products(users: int, items: int, multiple: int = 1) -> Callable[[], None]:
    """Return the matrix products of the output layer over an epoch, one forward and two backward, and nothing else.

    Rows of users × items are as long as a `multiple` of so many numbers.
    """
    row = -(-items // multiple) * multiple
    features, weight, slope = torch.randn(BATCH, HIDDEN), torch.randn(items, HIDDEN), torch.randn(BATCH, row)[:, :items]
    logits, to_features, to_weight = (
        torch.empty(BATCH, row)[:, :items],
        torch.empty(BATCH, HIDDEN),
        torch.empty_like(weight),
    )

    def run() -> None:
        for start in range(0, users, BATCH):
            count = min(BATCH, users - start)
            torch.mm(features[:count], weight.T, out=logits[:count])
            torch.mm(slope[:count], weight, out=to_features[:count])
            torch.mm(slope[:count].T, features[:count], out=to_weight)

    return run


def plain(histories: csr_matrix) -> Callable[[], None]:
    """Return an epoch of the plain model."""
    torch.manual_seed(0)
    model = PlainMultVAE(histories.shape[1])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    updates = 0

    def run() -> None:
        nonlocal updates
        updates = train_epoch(model, optimiser, histories, batch_size=BATCH, updates=updates)

    return run


def in_turn_with_recae(histories: csr_matrix, epochs: int) -> dict[str, list[float]]:
    """Return the seconds of each epoch of recae, the plain model and the products, but for a first one to warm up."""
    others = {
        "plain PyTorch": plain(histories),
        "products": three_products(*histories.shape),
        "aligned products": three_products(*histories.shape, multiple=16),
    }
    seconds: dict[str, list[float]] = {"recae": [], **{name: [] for name in others}}

    def listener(step: Step) -> None:
        seconds["recae"].append(step.figures["seconds"])
        for name, run in others.items():
            begun = perf_counter()
            run()
            seconds[name].append(perf_counter() - begun)

    fit(histories, epochs + 1, listener)
    return {name: taken[1:] for name, taken in seconds.items()}


def fit(histories: csr_matrix, epochs: int, listener: Callable[[Step], None] = lambda step: None) -> None:
    """Train recae's model as anybody would."""
    MultVAE(hidden=(HIDDEN,), batch_size=BATCH, epochs=epochs).fit(histories, FitOptions(seed=0, listener=listener))


def peak(arguments: argparse.Namespace, of: str, data_set: str) -> float:
    """Return the most gigabytes that a process of its own has resident over two epochs."""
    found = in_child(
        Path(__file__),
        "--peak-of",
        of,
        "--set",
        data_set,
        "--users",
        str(arguments.users),
        "--data",
        str(arguments.data),
    )
    return float(found["peak"]) / 1e9


def main() -> None:
    """Print the table, or the peak memory of one of its lines as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_argument(parser)
    parser.add_argument("--epochs", type=int, default=7, help="epochs of each that are timed")
    parser.add_argument("--users", type=int, default=5000, help="users of the generated set")
    parser.add_argument("--quick", action="store_true", help="three epochs, 1,000 generated users")
    parser.add_argument("--peak-of", choices=["recae", "plain PyTorch", "histories"], help=argparse.SUPPRESS)
    parser.add_argument("--set", choices=list(GOALS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.epochs, arguments.users = 3, 1000
    sets = {ML_1M: lambda: training_users(arguments.data), GENERATED: lambda: generated(arguments.users)}

    if arguments.peak_of:
        histories = sets[arguments.set]()
        if arguments.peak_of == "recae":
            fit(histories, 2)
        elif arguments.peak_of == "plain PyTorch":
            run = plain(histories)
            run(), run()
        print(json.dumps({"peak": peak_resident()}))
        return

    print(machine("torch", "numpy", "scipy"), f"{torch.get_num_threads()} threads", sep=", ")
    if line := amiss(arguments.data):
        print(f"{line}. The generated set alone:")
        del sets[ML_1M]
    rows = []
    for name, read in sets.items():
        histories = read()
        users, items = histories.shape
        seconds = in_turn_with_recae(histories, arguments.epochs)
        own, dense, products, aligned = (median(taken) for taken in seconds.values())
        flop = 6 * users * items * HIDDEN
        rows.append(
            (
                f"{name}: {users:,} users × {items:,} items, {histories.nnz / users:.0f} interactions a user",
                f"{own:.3f} s",
                f"{dense:.3f} s",
                f"{products:.3f} s ({flop / products / 1e9:.0f} GFLOP/s)",
                f"{aligned:.3f} s ({flop / aligned / 1e9:.0f} GFLOP/s)",
                f"{dense / own:.2f} × (goal {GOALS[name]} ×)",
                f"{own / products:.2f} × (goal {OF_PRODUCTS} ×)",
                f"{own / aligned:.2f} ×",
                " / ".join(f"{peak(arguments, of, name):.2f} GB" for of in ("recae", "plain PyTorch", "histories")),
            )
        )
    header = (
        "an epoch of Mult-VAE 600-200, batch 500",
        "recae",
        "plain PyTorch",
        "the three output-layer products alone",
        "the same, rows padded to cache lines",
        "plain PyTorch / recae",
        "recae / products",
        "recae / padded products",
        "peak resident: recae / plain / only imports and data",
    )
    print(table(header, rows))
    print(f"Medians of {arguments.epochs} epochs of each, one after the other in one process.")


if __name__ == "__main__":
    main()
