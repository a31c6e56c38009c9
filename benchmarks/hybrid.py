"""The hybrid beside its parts and beside the naive sum of a linear model and RecVAE, over several splits.

    python benchmarks/hybrid.py [--data FOLDER] [--seeds 98765 1 2 3 4] [--threads 2] [--fold validation]

MovieLens-1M (the archive as GroupLens has it), the protocol of Liang et al. 2018 (600 validation and 600 test users)
with the literature's seed and four others. Trained are ALS, RDLAE, Kernel-AE, RecVAE and the hybrid, with settings that
were chosen on the validation users of the first split and are the same for all; RecVAE is the hybrid's own deep part.
The naive sum adds the scores of RDLAE and RecVAE, each model's standardised over the whole fold. What is told is
NDCG@100, its mean over the splits, and the hybrid's gain over each of the others, paired by user. `--fold validation`
looks at the validation users instead, to choose by.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine, table
from ml_1m import add_argument, require
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

import recae
from recae.metrics import find_hits, measure_users

ZIP, INSIDE = "ml-1m.zip", ("ml-1m/ratings.dat",)
NDCG = recae.Metric("ndcg", 100)
ALS: dict[str, Any] = {"factors": 384, "regularization": 80.0, "alpha": 10.0}
SUM = "rdlae + rec-vae"


def ndcg(scores: Tensor, history: csr_matrix, held_out: csr_matrix) -> NDArray[np.float64]:
    """Return each user's NDCG@100, NaN without a target."""
    left = scores.clone()
    left[history.nonzero()] = -torch.inf
    return measure_users(NDCG, find_hits(left.topk(NDCG.k).indices.numpy(), held_out), np.diff(held_out.indptr))


def standardised(scores: Tensor) -> Tensor:
    """Return scores less their mean, over their standard deviation, over all users and items."""
    return (scores - scores.mean()) / scores.std()


def judge(likes: Any, seed: int, fold: str) -> dict[str, NDArray[np.float64]]:
    """Return each user's NDCG@100 by model, on one split."""
    split = recae.strong_generalisation(likes, held_out_users=600, seed=seed)
    train = split.train.matrix
    options = recae.FitOptions(
        validation=recae.Validation(split.validation.history.matrix, split.validation.held_out.matrix)
    )
    asked = split.validation if fold == "validation" else split.test
    history, held_out = asked.history.matrix, asked.held_out.matrix
    hybrid: Any = recae.build("hybrid").fit(train, options)
    models = {
        "als": recae.build("als", **ALS).fit(train, options),
        "rdlae": recae.build("rdlae").fit(train, options),
        "kernel-ae": hybrid.memory_,
        "rec-vae": hybrid.deep_,
        "hybrid": hybrid,
    }
    scores = {name: model.score(history) for name, model in models.items()}
    scores[SUM] = standardised(scores["rdlae"]) + standardised(scores["rec-vae"])
    return {name: ndcg(of_model, history, held_out) for name, of_model in scores.items()}


def over_splits(found: Mapping[int, Mapping[str, NDArray[np.float64]]], flagship: str) -> str:
    """Return a table of each user's figure by split's seed and model: means, best first, and the flagship's gains.

    A mean's ± is the standard deviation over the splits; a gain's is its standard error, paired by user, the users of
    all splits taken together.
    """
    means = {
        name: [float(np.nanmean(of_split[name])) for of_split in found.values()] for name in next(iter(found.values()))
    }
    rows = []
    for name in sorted(means, key=lambda name: -sum(means[name])):
        spread = f"{np.mean(means[name]):.4f} ±{np.std(means[name], ddof=1):.4f}" if len(found) > 1 else "–"
        gains = [of_split[flagship] - of_split[name] for of_split in found.values()]
        told = [gain[~np.isnan(gain)] for gain in (gains[0], np.concatenate(gains))]
        behind = [f"{gain.mean():+.4f} ±{gain.std() / len(gain) ** 0.5:.4f}" for gain in told]
        rows.append(
            [f"`{name}`", *(f"{mean:.4f}" for mean in means[name]), spread, *(behind if name != flagship else "––")]
        )
    return table(
        ["model", *map(str, found), "mean", f"{flagship}'s gain, split {next(iter(found))}", "… all splits"], rows
    )


def main() -> None:
    """Fit, judge, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_argument(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[98765, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fold", choices=("validation", "test"), default="test")
    asked = parser.parse_args()
    require(asked.data, ZIP, INSIDE)
    torch.set_num_threads(asked.threads)
    likes = recae.Interactions.from_events(
        recae.read_events(Path(asked.data) / ZIP), recae.Preparation(min_value=4), min_items=5
    )
    print(machine("torch", "implicit"))
    print(f"NDCG@100 of {asked.fold} users; mean and standard deviation over splits; gains ± standard error\n")
    print(over_splits({seed: judge(likes, seed, asked.fold) for seed in asked.seeds}, "hybrid"))


if __name__ == "__main__":
    main()
