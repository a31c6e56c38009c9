"""Whole recipes over several splits: is the hybrid, at its defaults, the best on sparse sets and on dense ones alike?

    python benchmarks/anywhere.py [RECIPE …] [--data FOLDER] [--seeds 98765 1 2 3 4] [--threads 2] [--fold validation]

Without recipes: Last.fm, MovieLens-100K and MovieLens latest-small, whose archives lie in FOLDER under the names that
the recipes have. Every model of a recipe is fitted with the recipe's settings on each seed's split. These settings were
chosen on the validation users of the recipe's own split, from the grid in its `tune` section; the hybrid's and
Kernel-AE's are the defaults. What is told is the recipe's first metric, its mean over the splits, and the hybrid's gain
over each of the others, paired by user.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from hybrid import over_splits
from measure import machine
from ml_1m import add_argument, require
from numpy.typing import NDArray

import recae
from recae.experiment import read_split, training_interactions
from recae.recipe import Recipe, read_recipe

PIPELINES = Path(__file__).parents[1] / "pipelines"
RECIPES = [PIPELINES / f"{name}.yaml" for name in ("lastfm", "ml-100k", "ml-latest-small")]
FLAGSHIP = "hybrid"


def judge(recipe: Recipe, fold: str) -> Mapping[str, NDArray[np.float64]]:
    """Return each user's figure by model, on the recipe's split."""
    split, metric = read_split(recipe), recipe.evaluation.parsed[0]
    watched = recae.Validation(split.validation.history.matrix, split.validation.held_out.matrix, metric)
    asked = split.validation if fold == "validation" else split.test
    history, held_out = asked.history.matrix, asked.held_out.matrix
    found = {}
    for label, model in recipe.build_models().items():
        model.fit(training_interactions(model, split).matrix, recae.FitOptions(seed=recipe.seed, validation=watched))
        top = recae.top_n(model.score, history, metric.k)
        found[label] = recae.evaluate(top, history, held_out, [metric]).per_user[metric.key].to_numpy()
    return found


def main() -> None:
    """Fit, judge, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipes", type=Path, nargs="*", metavar="RECIPE", default=RECIPES)
    add_argument(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[98765, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fold", choices=("validation", "test"), default="test")
    asked = parser.parse_args()
    archives = {path: asked.data / Path(read_recipe(path).data.path).name for path in asked.recipes}
    for archive in archives.values():
        require(asked.data, archive.name, ())
    torch.set_num_threads(asked.threads)
    print(machine("torch", "implicit"))
    print(f"{asked.fold} users; mean and standard deviation over splits; gains ± standard error")
    for path, archive in archives.items():
        own = {"data.path": str(archive)}
        plan = read_recipe(path, own)
        found = {seed: judge(read_recipe(path, {**own, "split.seed": seed}), asked.fold) for seed in asked.seeds}
        print(f"\n{plan.name}: {plan.evaluation.parsed[0]}\n\n{over_splits(found, FLAGSHIP)}")


if __name__ == "__main__":
    main()
