"""How well fake users are found: ROC-AUC of anomalies against three shilling attacks, planted in MovieLens-1M's likes.

    python benchmarks/anomalies.py [--seeds 2 3 4] [--models "mult-vae 200-64"] [--threads 2] [--data FOLDER]

The attacks are those of Lam and Riedl 2004 and Mobasher et al. 2007, for likes: every fake user likes the one item that
is to be promoted, drawn from all, and filler beside it: items drawn evenly (random), in proportion to their popularity
(average), or half of them the most popular there are and half drawn evenly (bandwagon). There are as many fake users as
1 % of the 4,834 real ones; their histories are as long as those of real users drawn at random, so that length gives
nobody away. One attack at a time.

A model is trained on the log with the fakes in it, as whoever has them is; beside it, on the log without them. What is
compared: `recae anomalies`; the same without hiding anything; the same with the mean of a whole history in the place of
that of its more surprising half; and two controls, length alone and the mean logarithm of popularity alone, either way
round, whichever is better. Score and settings were chosen on the seeds 0 and, in part, 1.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import measure
import ml_1m
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from sklearn.metrics import roc_auc_score

from recae.anomalies import Surprise, Usual, of_users, surprise_of
from recae.models import build
from recae.models.base import FitOptions

SHARE = 0.01
ATTACKS = ("random", "average", "bandwagon")
QUICK = {"averaging": 0.98, "learning_rate": 3e-3, "batch_size": 250, "epochs": 12}
NARROW = "mult-vae 200-64"
"""A wider one has room to learn what the fakes have in common."""

MODELS: Mapping[str, dict[str, Any]] = {
    NARROW: {**QUICK, "hidden": (200,), "latent": 64, "kl_cap": 0.2, "kl_anneal_steps": 500},
    "mult-vae 600-200": {**QUICK, "kl_anneal_steps": 4000},
}
SCORES = ("recae anomalies", "nothing hidden", "whole history")


def plant(real: csr_matrix, attack: str, seed: int) -> tuple[csr_matrix, NDArray[np.bool_]]:
    """Return histories with fake users after the real ones, and which they are."""
    rng = np.random.default_rng(seed)
    users, items = real.shape
    popularity = np.bincount(real.indices, minlength=items)
    ordered = np.argsort(-popularity, kind="stable")
    target, fakes = rng.integers(items), []
    for length in rng.choice(np.diff(real.indptr), round(SHARE * users)):
        head = ordered[: (length - 1) // 2] if attack == "bandwagon" else ordered[:0]
        odds = np.ones(items) if attack != "average" else popularity.astype(np.float64)
        odds[[target, *head]] = 0
        filler = rng.choice(items, length - 1 - len(head), replace=False, p=odds / odds.sum())
        fakes.append(np.sort(np.unique([target, *head, *filler])))
    ends = np.cumsum([0, *map(len, fakes)])
    made = csr_matrix((np.ones(ends[-1], np.float32), np.concatenate(fakes), ends), shape=(len(fakes), items))
    return vstack([real, made], format="csr"), np.arange(users + len(fakes)) >= users


def copied(model: Any, histories: csr_matrix) -> Surprise:
    """Return how much histories surprise a model that is shown all of them."""
    blocks = [histories[start : start + 128] for start in range(0, histories.shape[0], 128)]
    of_each = -np.concatenate([model.log_likelihoods(block, block).numpy() for block in blocks])
    lengths = np.diff(histories.indptr).astype(np.int64)
    return Surprise(of_each, of_users(of_each, lengths), lengths)


def figures(model: Any, histories: csr_matrix, fake: NDArray[np.bool_], seed: int) -> list[float]:
    """Return the AUC of each of SCORES."""
    hidden = surprise_of(model, histories, seed=seed)
    whole = Surprise(hidden.of_each, of_users(hidden.of_each, hidden.lengths, share=1.0), hidden.lengths)
    judged = [Usual.of(one).deviations(one) for one in (hidden, copied(model, histories), whole)]
    there = hidden.scored
    return [float(roc_auc_score(fake[there], z[there])) for z in judged]


def controls(histories: csr_matrix, fake: NDArray[np.bool_]) -> list[float]:
    """Return the AUC of length alone and of popularity alone, either way round."""
    lengths = np.diff(histories.indptr)
    popularity = np.log(np.bincount(histories.indices, minlength=histories.shape[1]))[histories.indices]
    means = np.add.reduceat(popularity, histories.indptr[:-1]) / lengths
    either = [float(roc_auc_score(fake, score)) for score in (lengths, means)]
    return [max(figure, 1 - figure) for figure in either]


def main() -> None:
    """Plant every attack, train, look, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--models", nargs="+", default=[NARROW], choices=list(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    ml_1m.add_argument(parser)
    asked = parser.parse_args()
    ml_1m.require(asked.data)
    torch.set_num_threads(asked.threads)
    real = ml_1m.training_users(Path(asked.data))
    print(measure.machine("torch"), f"\n{asked.threads} threads; seeds {', '.join(map(str, asked.seeds))}\n")
    rows = []
    for name in asked.models:
        kind, settings = name.split()[0], MODELS[name]
        found: dict[tuple[str, str], list[list[float]]] = {}
        for seed in asked.seeds:
            options = FitOptions(seed=seed)
            clean = build(kind, **settings).fit(real, options)
            for attack in ATTACKS:
                histories, fake = plant(real, attack, seed)
                known = controls(histories, fake)
                for trained, model in (("yes", build(kind, **settings).fit(histories, options)), ("no", clean)):
                    result = [*figures(model, histories, fake, seed), *known]
                    found.setdefault((attack, trained), []).append(result)
        for (attack, trained), results in found.items():
            cells = zip(np.mean(results, axis=0), np.std(results, axis=0), strict=True)
            rows.append([name, attack, trained, *(f"{mean:.3f} ± {spread:.3f}" for mean, spread in cells)])
    print(measure.table(["model", "attack", "trained on the fakes", *SCORES, "length alone", "popularity alone"], rows))


if __name__ == "__main__":
    main()
