"""What item vectors know of genres they were never told: a linear probe, model by model, at the same dimension.

    python benchmarks/probe.py [--data FOLDER] [--dimension 200] [--models als autoencoder …] [--threads 2]

MovieLens-1M (the archive as GroupLens has it; ratings from 4 as likes, users with 5 of them): each model learns from
all users, and a logistic regression is then to tell, for each genre, whether a film has it, from the film's vector
alone (its bias left out, coordinates scaled to unit variance). Five folds of the films; the regression's penalty is
chosen inside of each training fold. Told are the area under the ROC curve and the average precision of the films that
were left out, means over the genres that at least FEWEST films have; `random` are vectors that know nothing, and
`popularity` is one coordinate, the logarithm of a film's count. The difference to ALS is paired over genres.
"""

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine, table
from ml_1m import add_argument, require
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import recae

ZIP, INSIDE = "ml-1m.zip", ("ml-1m/ratings.dat", "ml-1m/movies.dat")
FEWEST, FOLDS, PENALTIES = 50, 5, (1e-4, 1e-3, 1e-2, 1e-1)
SEED = 42


def models(dimension: int) -> dict[str, dict[str, Any]]:
    """Return who takes part, by row: with settings that were chosen for ranking (validation of ML-1M strong).

    The two `for genres` have those with the best precision on a fifth of the films, of a few that were tried of each.
    """
    return {
        "als": {"factors": dimension, "regularization": 80.0, "alpha": 10.0},
        "als for genres": {"factors": dimension, "regularization": 20.0, "alpha": 10.0},
        "autoencoder for genres": {"latent": dimension, "unseen": 0.1, "dropout": 0.5, "learning_rate": 0.003}
        | {"epochs": 120},
        "bpr": {"factors": dimension},
        "mult-dae": {"latent": dimension, "epochs": 40},
        "mult-vae": {"latent": dimension, "hidden": (), "epochs": 60, "averaging": 0.98},
        "rec-vae": {"latent": dimension, "gamma": 0.005, "encoder_passes": 1, "averaging": 0.98, "batch_size": 250}
        | {"epochs": 50},
    }


def probe(vectors: NDArray[np.floating], genres: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each genre the area under the ROC curve and the average precision of films left out."""
    areas, precisions = [], []
    for has in genres.T:
        told = np.empty(len(has))
        for known, asked in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(vectors, has):
            regression = LogisticRegressionCV(
                Cs=PENALTIES, cv=3, scoring="neg_log_loss", l1_ratios=(0,), max_iter=300, use_legacy_attributes=False
            )
            fitted = make_pipeline(StandardScaler(), regression).fit(vectors[known], has[known])
            told[asked] = fitted.decision_function(vectors[asked])
        areas.append(roc_auc_score(has, told))
        precisions.append(average_precision_score(has, told))
    return np.array(areas), np.array(precisions)


def rows(found: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], dimension: int) -> list[list[str]]:
    """Return the table's rows: means, and the mean difference to ALS in average precision with its standard error."""
    lines = []
    for name, (areas, precisions) in found.items():
        gain = precisions - found["als"][1]
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        wide = 1 if name == "popularity" else dimension
        lines.append(
            [
                f"`{name}`",
                str(wide),
                f"{areas.mean():.3f}",
                f"{precisions.mean():.3f}",
                f"{gain.mean():+.3f} ±{error:.3f}",
            ]
        )
    return lines


def main() -> None:
    """Fit, probe, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_argument(parser)
    parser.add_argument("--dimension", type=int, default=200)
    parser.add_argument("--models", nargs="+", metavar="ROW", help="als and these rows alone")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    require(asked.data, ZIP, INSIDE)
    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore", module="sklearn")
    likes = recae.Interactions.from_events(
        recae.read_events(Path(asked.data) / ZIP), recae.Preparation(min_value=4), min_items=5
    )
    flags = likes.item_table["genres"].str.get_dummies("|").astype(bool)
    flags = flags.loc[:, flags.sum() >= FEWEST]
    genres = flags.to_numpy()
    counts = np.asarray(likes.matrix.sum(axis=0)).ravel()
    blind = np.random.default_rng(SEED).standard_normal((len(counts), asked.dimension))
    found = {}
    for name, settings in models(asked.dimension).items():
        if asked.models and name not in ("als", *asked.models):
            continue
        model: Any = recae.build(name.split()[0], **settings).fit(likes.matrix)
        vectors = model.embed_items().numpy()
        found[name] = probe(vectors[:, : asked.dimension], genres)
    found["popularity"] = probe(np.log1p(counts)[:, None], genres)
    found["random"] = probe(blind, genres)
    print(machine("torch", "implicit", "scikit-learn"))
    print(f"{len(counts):,} films, {genres.shape[1]} genres, {len(likes.users):,} users\n")
    print(table(["vectors of", "width", "ROC AUC", "average precision", "… beyond ALS"], rows(found, asked.dimension)))


if __name__ == "__main__":
    main()
