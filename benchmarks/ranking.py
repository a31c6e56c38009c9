"""Ranking: the top 100 of a whole catalogue, seen items removed, in users a second.

`python benchmarks/ranking.py` ranks a generated set of ML-20M's shape, and one of ML-1M's, with recae, with implicit
and with a product followed by a sort in plain torch; vectors of the same dimension for all. `--quick` takes a tenth of
the users; `--large` ranks 10,000 users at 1,000,000 items instead, and says how much memory that took.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from implicit.cpu.als import AlternatingLeastSquares
from measure import in_child, in_turn, machine, median, peak_resident, table
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits
from torch import Tensor

from recae.models import build
from recae.models.als import ALS
from recae.models.base import Recommender
from recae.ranking import top_n
from recae.scoring import Tiles, inner_products

N = 100
DIMENSION = 128
BATCH = 128
"""Users scored at a time in plain torch: the fastest of 64, 128, 256 and 512 on this kind of machine."""


@dataclass(frozen=True)
class Shape:
    """What is generated."""

    name: str
    users: int
    items: int
    history: int


ML_20M = Shape("20,108 items", 20_000, 20_108, 73)
ML_1M = Shape("3,497 items", 20_000, 3_497, 95)
LARGE = Shape("1,000,000 items", 10_000, 1_000_000, 100)


@dataclass(frozen=True, eq=False)
class Given:
    """A recommender whose user vectors are known beforehand, found by the first two items of a history."""

    users: Tensor
    items: Tensor

    def score(self, histories: csr_matrix) -> Tensor:
        """Return users × items."""
        return self._vectors(histories) @ self.items.T

    def score_by_tile(self, histories: csr_matrix) -> Tiles:
        """Return the scores as tiles."""
        return inner_products(self._vectors(histories), self.items)

    def state(self) -> dict[str, Tensor]:
        """Return the vectors."""
        return {"users": self.users, "items": self.items}

    def _vectors(self, histories: csr_matrix) -> Tensor:
        return self.users[torch.from_numpy(histories.data[histories.indptr[:-1]]).long()]


def generated(shape: Shape, users: int) -> csr_matrix:
    """Return histories of log-normal length whose items follow a power law; a history's values are all its row."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(shape.history) - 0.3, 0.78, users).astype(int), 5, shape.items // 2)
    popularity = 1 / (np.arange(shape.items) + 20.0)
    columns = generator.choice(shape.items, 2 * lengths.sum(), p=popularity / popularity.sum())
    rows = np.repeat(np.arange(users), 2 * lengths)
    pairs = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(users, shape.items))
    kept = np.concatenate(
        [
            generator.permutation(pairs.indices[start:stop])[:length]
            for start, stop, length in zip(pairs.indptr[:-1], pairs.indptr[1:], lengths, strict=True)
        ]
    )
    lengths = np.minimum(lengths, np.diff(pairs.indptr))
    histories = csr_matrix(
        (np.ones(len(kept), np.float32), kept, np.concatenate([[0], lengths.cumsum()])), shape=pairs.shape
    )
    histories.sort_indices()
    return histories


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the users")
    parser.add_argument("--large", action="store_true", help="10,000 users at 1,000,000 items, and the memory it takes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    share = 10 if options.quick else 1
    if options.child:
        print(json.dumps(large(LARGE.users // share)))
        return
    print(machine("torch", "numpy", "implicit"), f"{options.threads} threads", sep=", ")
    if options.large:
        found = in_child(Path(__file__), "--child", "--threads", str(options.threads), *["--quick"] * options.quick)
        print(f"\n{LARGE.name}, dimension {DIMENSION}: {found['users']:,} users in {found['seconds']:.1f} s, ", end="")
        print(f"{found['users'] / found['seconds']:,.0f} users a second, {found['peak'] / 2**30:.2f} GiB resident")
        return
    for shape in (ML_20M, ML_1M):
        histories = generated(shape, shape.users // share)
        mean = histories.nnz / histories.shape[0]
        print(f"\n### {shape.name}, {histories.shape[0]:,} users with {mean:.0f} items, top {N}, seen items removed\n")
        print(factorised(histories, options))
        print()
        print(models(histories, options))


def factorised(histories: csr_matrix, options: argparse.Namespace) -> str:
    """Return the table of one job for all: vectors of one dimension, of users that are known or folded in."""
    users, items = histories.shape
    generator = np.random.default_rng(1)
    item_vectors = (generator.normal(size=(items, DIMENSION)) / 10).astype(np.float32)
    peer = AlternatingLeastSquares(factors=DIMENSION, regularization=30, alpha=5, num_threads=options.threads)
    peer.item_factors = item_vectors
    model = ALS(factors=DIMENSION, regularization=30, alpha=5).restore({"item_factors": torch.from_numpy(item_vectors)})
    vectors = model.embed_users(histories)
    peer.user_factors = vectors.numpy()
    given = Given(vectors, torch.from_numpy(item_vectors))
    # Histories that say which row they are, for the model that looks its vectors up.
    numbered = histories.copy()
    numbered.data = np.repeat(np.arange(users, dtype=np.float32), np.diff(histories.indptr))

    def product_then_sort() -> None:
        for start in range(0, users, BATCH):
            scores = vectors[start : start + BATCH] @ given.items.T
            own = histories[start : start + BATCH].tocoo()
            scores[torch.from_numpy(own.row).long(), torch.from_numpy(own.col).long()] = -torch.inf
            torch.topk(scores, N, dim=1)

    def product_alone() -> None:
        scores = torch.empty(BATCH, items)
        for start in range(0, users - BATCH + 1, BATCH):
            torch.mm(vectors[start : start + BATCH], given.items.T, out=scores)

    def peers(recalculate_user: bool = False) -> None:
        with threadpool_limits(limits=1, user_api="blas"):  # as implicit asks for: its own threads are enough
            peer.recommend(np.arange(users), histories, N=N, recalculate_user=recalculate_user)

    seconds = in_turn(
        {
            "the product alone, kept nowhere": product_alone,
            "**recae, vectors given**": lambda: top_n(given.score, numbered, N),
            "product, mask, torch.topk": product_then_sort,
            "implicit ALS, known users": peers,
            "**recae ALS, folded in from histories**": lambda: top_n(model.score, histories, N),
            "implicit ALS, recalculate_user": lambda: peers(recalculate_user=True),
            "recae ALS, folding in alone": lambda: [
                model.embed_users(histories[start : start + BATCH]) for start in range(0, users, BATCH)
            ],
        },
        options.repeats,
    )
    ours = median(seconds["**recae, vectors given**"])
    return rates(seconds, users, ours, "recae, vectors given, is faster by")


def models(histories: csr_matrix, options: argparse.Namespace) -> str:
    """Return the table of recae's other models: what their scores take, and ranking by them, tiled and plain."""
    users, items = histories.shape[0] // 5, histories.shape[1]
    asked, work = histories[:users], {}
    for model in (untrained("mult-vae", items), untrained("ease", items)):
        work[f"**{model.name}**"] = ranked(model.score, asked)
        # A function is not known for a model's, so it is asked for the scores of the whole catalogue.
        work[f"{model.name}, from its whole scores"] = ranked(lambda rows, model=model: model.score(rows), asked)
        work[f"{model.name}, scores alone"] = scored(model, asked)
    return rates(in_turn(work, options.repeats), users)


def ranked(score: Callable[[csr_matrix], Tensor], histories: csr_matrix) -> Callable[[], object]:
    """Return the work of ranking."""
    return lambda: top_n(score, histories, N)


def scored(model: Recommender, histories: csr_matrix) -> Callable[[], object]:
    """Return the work of scoring."""
    return lambda: [model.score(histories[start : start + BATCH]) for start in range(0, histories.shape[0], BATCH)]


def untrained(name: str, items: int) -> Recommender:
    """Return a model with weights that say nothing."""
    generator = torch.Generator().manual_seed(0)
    if name == "ease":
        return build("ease").restore({"weights": torch.randn(items, items, generator=generator) / 100})
    model = build(name, hidden=(600,), latent=200)
    shapes = {key: tensor.shape for key, tensor in model.build_network(items).state_dict().items()}  # type: ignore[attr-defined]
    return model.restore({key: torch.randn(shape, generator=generator) / 25 for key, shape in shapes.items()})


def rates(seconds: Mapping[str, Sequence[float]], users: int, ours: float | None = None, ratio: str = "") -> str:
    """Return a table of users a second."""
    rows = []
    for name, times in seconds.items():
        row = [name, f"{users / median(times):,.0f}", f"{1e6 * median(times) / users:.1f}"]
        rows.append([*row, f"{median(times) / ours:.2f} ×"] if ours else row)
    return table(["", "users/s", "µs a user", *([ratio] if ours else [])], rows)


def large(users: int) -> dict[str, float]:
    """Rank at a million items, in a process of its own; return how long it took and what was resident."""
    generator = np.random.default_rng(2)
    histories = sampled(users, LARGE.items, LARGE.history, generator)
    state = {"item_factors": torch.from_numpy(generator.standard_normal((LARGE.items, DIMENSION), np.float32))}
    given = Given(torch.from_numpy(generator.standard_normal((users, DIMENSION), np.float32)), state["item_factors"])
    begun = time.perf_counter()
    top_n(given.score, histories, N)
    return {"users": users, "seconds": time.perf_counter() - begun, "peak": peak_resident()}


def sampled(users: int, items: int, length: int, generator: np.random.Generator) -> csr_matrix:
    """Return histories of one length, their items drawn evenly (twice the same is one); values are the row."""
    columns: NDArray[np.int64] = np.sort(generator.integers(0, items, (users, length)), axis=1)
    data = np.repeat(np.arange(users, dtype=np.float32), length)
    return csr_matrix((data, columns.ravel(), np.arange(0, users * length + 1, length)), shape=(users, items))


if __name__ == "__main__":
    sys.exit(main())
