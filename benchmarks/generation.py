"""Made-up users of MovieLens-1M: what they share with the real ones, and whether a model can learn from them instead.

    python benchmarks/generation.py [--data FOLDER] [--models mult-vae rec-vae vamp-vae] [--fold test] [--threads 2]
                                    [--seed 42] [--epochs 200]

Each generator is trained on the training users, and stops early by the validation users; then it makes up as many users
as it was trained on. Compared with the real ones: how popular items are, and how long histories. Other models are then
trained on the real users, and on the made-up ones instead; both look for the held-out items of the same real users,
those of `--fold`. Last, how near the made-up users come to a user of the training, by the largest Jaccard similarity,
next to how near other real users come: those of both folds, with all their items.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import measure
import ml_1m
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from recae.generation import Likeness, make_up, nearest_likeness
from recae.models import build
from recae.models.base import FitOptions, Recommender
from recae.validation import Validation

QUICK = {"learning_rate": 3e-3, "batch_size": 250, "kl_anneal_steps": 4000, "averaging": 0.98}

GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "mult-vae": QUICK,
    "rec-vae": {"gamma": 0.005, "learning_rate": 7e-4, "batch_size": 250, "encoder_passes": 1, "averaging": 0.98},
    "vamp-vae": {},
}
"""What makes up users, with the settings of benchmarks/quality.py; vamp-vae has its defaults."""

LEARNERS: Mapping[str, Mapping[str, Any]] = {"rdlae": {}, "mult-vae": QUICK}
"""What learns from them."""

PATIENCE = 10

FOLDS = ("validation", "test")


def fitted(name: str, settings: Mapping[str, Any], histories: csr_matrix, given: argparse.Namespace) -> Recommender:
    """Return a model that was trained on histories, and stopped early where it has epochs."""
    epochs = {"epochs": given.epochs, "patience": PATIENCE} if hasattr(build(name), "epochs") else {}
    validation = Validation(*ml_1m.fold(given.data, "validation"))
    return build(name, **settings, **epochs).fit(histories, FitOptions(seed=given.seed, validation=validation))


def learned(histories: csr_matrix, given: argparse.Namespace) -> dict[str, float]:
    """Return for each learner the NDCG@100 on real users of what it learns from histories."""
    judged = Validation(*ml_1m.fold(given.data, given.fold))
    return {name: judged.measure(fitted(name, settings, histories, given)) for name, settings in LEARNERS.items()}


def quantiles(figures: NDArray[Any]) -> str:
    """Return the 5 %, 50 % and 95 % quantiles."""
    return " / ".join(f"{figure:.3g}" for figure in np.quantile(figures, [0.05, 0.5, 0.95]))


def nearness(histories: csr_matrix, real: csr_matrix) -> str:
    """Return how near histories come to a real one: the quantiles and the largest of their likenesses."""
    nearest = nearest_likeness(histories, real)
    return f"{quantiles(nearest)} / {nearest.max():.3f}"


def row(name: str, real: csr_matrix, of_real: Mapping[str, float], given: argparse.Namespace) -> list[str]:
    """Return a generator's line of the table."""
    model: Any = fitted(name, GENERATORS[name], real, given)
    made_up = vstack(list(make_up(model, real.shape[0], given.seed)), format="csr")
    likeness = Likeness.of(real, made_up)
    return [
        name,
        f"{likeness.rank_correlation:.3f} / {likeness.correlation:.3f}",
        f"{likeness.length_distance:.3f}",
        quantiles(made_up.getnnz(axis=1)),
        *(f"{found:.4f} ({found / of_real[learner]:.1%})" for learner, found in learned(made_up, given).items()),
        nearness(made_up, real),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ml_1m.add_argument(parser)
    parser.add_argument("--models", nargs="+", choices=list(GENERATORS), default=list(GENERATORS))
    parser.add_argument("--fold", choices=["validation", "test"], default="test", help="the users that are looked at")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--epochs", type=int, default=200, help="at most")
    given = parser.parse_args()
    ml_1m.require(given.data)
    torch.set_num_threads(given.threads)
    real = ml_1m.training_users(given.data)
    folds = [ml_1m.fold(given.data, name) for name in FOLDS]
    others = vstack([history + held_out for history, held_out in folds], format="csr")
    of_real = learned(real, given)
    print(measure.machine("torch", "numpy", "scipy"))
    print(f"{real.shape[0]:,} users made up by each; NDCG@100 of the {given.fold} users; quantiles 5, 50, 95 %\n")
    header = [
        "generator",
        "popularity, Spearman / Pearson",
        "lengths, Kolmogorov-Smirnov",
        "lengths, quantiles",
        *(f"{learner} learns (share of real)" for learner in LEARNERS),
        "nearest real user: Jaccard, quantiles / largest",
    ]
    lengths = quantiles(real.getnnz(axis=1))
    told = ["the real users", "1 / 1", "0", lengths, *(f"{found:.4f}" for found in of_real.values())]
    rows = [[*told, f"others: {nearness(others, real)}"]]
    rows += [row(name, real, of_real, given) for name in given.models]
    print(measure.table(header, rows))


if __name__ == "__main__":
    main()
