"""The command that searches for better settings than a recipe's."""

from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from recae.advice import resumable
from recae.errors import InputError
from recae.files import refuse_existing
from recae.options import (
    Device,
    DuplicatesOfRecipe,
    ItemCol,
    ItemTable,
    Json,
    MinItemsOfRecipe,
    MinValue,
    Overwrite,
    Quiet,
    Recipe,
    RecipeData,
    RecipeOut,
    RecipeSeed,
    RecipeSet,
    Resume,
    SkipBadRows,
    TimeCol,
    UserCol,
    ValueCol,
    ValuesOfRecipe,
    names,
    read_plan,
)

TRIALS = 20
"""Enough for a few hyper-parameters: about ten settings by chance, and as many that learn from those."""


def tune(
    recipe: Recipe,
    trials: Annotated[int, typer.Option("--trials", min=1, help="How many settings of each model to try.")] = TRIALS,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="LABEL", help="Search for this model of the recipe's alone; repeatable."),
    ] = None,
    data: RecipeData = None,
    items: ItemTable = None,
    out: RecipeOut = None,
    settings: RecipeSet = None,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    min_value: MinValue = None,
    min_items: MinItemsOfRecipe = None,
    values: ValuesOfRecipe = None,
    duplicates: DuplicatesOfRecipe = None,
    skip_bad_rows: SkipBadRows = False,
    seed: RecipeSeed = None,
    device: Device = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search the ranges in a recipe's `tune` section for better settings, judged on validation users alone."""
    if find_spec("optuna") is None:
        raise InputError("recae tune needs optuna, which is not installed: pip install 'recae[tune]'")
    if resume and out is None:
        raise InputError("--resume: say with --out which search is to go on, such as --out runs/films/tune")
    if out is not None:
        refuse_existing(out, overwrite=overwrite or resume)
    plan = read_plan(
        recipe,
        settings,
        data=data,
        items=items,
        columns=names(user_col, item_col, value_col, time_col),
        seed=seed,
        skip_bad_rows=skip_bad_rows,
        min_value=min_value,
        min_items=min_items,
        values=values,
        duplicates=duplicates,
    )
    plan.to_search(models or [])
    from recae import console, experiment, tuning
    from recae.tracking import Tracker

    out = out or Path("runs") / plan.name / f"tune-{datetime.now():%Y%m%d-%H%M%S}"
    speak = not (quiet or as_json)
    trackers: list[Tracker] = []

    def open_tracker(name: str) -> Tracker:
        trackers.append(Tracker(name))
        if trackers[0].lost:
            console.warn(trackers[0].lost)
        return trackers[0]

    kept = resumable(out, experiment.workspace_of(out), begun=lambda: bool(trackers))
    with kept, console.progress_bars(quiet) as listener:
        search = tuning.tune(
            plan,
            out,
            trials=trials,
            labels=models or [],
            open_tracker=open_tracker,
            device=device,
            resume=resume,
            overwrite=overwrite,
            listener=listener,
        )
    if as_json:
        best_of_each = {label: search.best(label) for label in search.trials}
        console.print_json(
            {
                "out": str(search.out),
                "metrics": {label: str(metric) for label, metric in search.metrics.items()},
                "best": {label: best and best.model_dump() for label, best in best_of_each.items()},
                "trials": {label: [trial.model_dump() for trial in found] for label, found in search.trials.items()},
                "notes": search.caveats,
            }
        )
    elif speak:
        console.print_search(search)
        console.say(f"results in {search.out}; recae compare {search.out / tuning.BEST} judges them on test users")
    console.print_tracked(search.tracker, speak)
