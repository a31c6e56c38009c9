"""What a sampled likelihood gains and costs: seconds an epoch and validation NDCG@100, beside the whole softmax's.

    python benchmarks/sampled.py [--model mult-dae] [--negatives 256 1024] [--epochs 30] [--threads 2] [--data FOLDER]

Two catalogues: MovieLens-1M's 3,497 items (strong generalisation, 600 validation users) and, for a fifth of the epochs,
Gowalla's 40,981 (a tenth of each user's training items for validation, 3,000 of the users). Settings are the model's
own but for the learning rate, three times as high, which suits all of them better. A sampled likelihood is given
`LONGER` times as many epochs; NDCG is of the best epoch among as many as the whole softmax had, among those of the
seconds that it took, and among all. All stop early where 20 epochs bring nothing better. Seconds are those of training,
without validation.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import ml_1m
import numpy as np
import torch
from scipy.sparse import csr_matrix

from recae.events import read_given_split
from recae.interactions import Interactions
from recae.models import build
from recae.models.base import FitOptions
from recae.splitting import given
from recae.validation import Validation

VALIDATED = 3000
LONGER = 4
GOWALLA = "gowalla.zip"


def movielens(folder: Path) -> tuple[csr_matrix, Validation]:
    """Return what is trained on and what is validated on."""
    return ml_1m.training_users(folder), Validation(*ml_1m.fold(folder, "validation"))


def gowalla(folder: Path) -> tuple[csr_matrix, Validation]:
    """Return what is trained on, and some of the users it carves a validation out of."""
    parts = {side: Interactions.from_events(events) for side, events in read_given_split(folder / GOWALLA).items()}
    split = given(parts)
    assert split.validation is not None
    fold = split.validation
    return split.train.matrix, Validation(fold.history.matrix[:VALIDATED], fold.held_out.matrix[:VALIDATED])


SETS: dict[str, Callable[[Path], tuple[csr_matrix, Validation]]] = {"MovieLens-1M": movielens, "Gowalla": gowalla}
NEEDED = {"MovieLens-1M": (ml_1m.ZIP, ml_1m.INSIDE), "Gowalla": (GOWALLA, ("gowalla/train.txt", "gowalla/test.txt"))}
"""The zip of each, and what must be in it."""


def main() -> None:
    """Train every variant on both, one after the other, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mult-dae")
    parser.add_argument("--negatives", type=int, nargs="*", default=[256, 1024])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    ml_1m.add_argument(parser)
    asked = parser.parse_args()
    for name in asked.sets:
        ml_1m.require(asked.data, *NEEDED[name])
    torch.set_num_threads(asked.threads)
    print(
        measure.machine("torch"), f"\n{asked.threads} threads; {asked.model}, learning rate {asked.learning_rate:g}\n"
    )
    rows = []
    for name in asked.sets:
        histories, validation = SETS[name](asked.data)
        epochs = asked.epochs if name == "MovieLens-1M" else max(1, asked.epochs // 5)
        whole: list[float] = []
        for negatives in (0, *asked.negatives):
            rounds = LONGER * epochs if negatives else epochs
            model: Any = build(asked.model, negatives=negatives, learning_rate=asked.learning_rate, epochs=rounds)
            curve = model.fit(histories, FitOptions(validation=validation)).training_.curve
            seconds = [figures["seconds"] for figures in curve]
            whole = whole or seconds
            best = np.maximum.accumulate([figures["ndcg_at_100"] for figures in curve])
            in_time = int((np.cumsum(seconds) <= sum(whole)).sum())
            rows.append(
                (
                    f"{name}, {histories.shape[1]:,} items",
                    negatives or "whole softmax",
                    f"{measure.median(seconds):.2f}",
                    f"{measure.median(whole) / measure.median(seconds):.2f}",
                    f"{best[min(epochs, len(best)) - 1]:.4f} ({epochs})",
                    f"{best[max(in_time, 1) - 1]:.4f} ({in_time})",
                    f"{best[-1]:.4f} ({len(best)})",
                )
            )
    quality = [f"NDCG@100 {of} (epochs)" for of in ("in the same epochs", "in the same seconds", "in all")]
    header = ("data", "negatives", "seconds an epoch", "times as fast", *quality)
    print(measure.table(header, rows))


if __name__ == "__main__":
    main()
