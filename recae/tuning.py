"""A search for better settings: try what a recipe's ranges allow, judge it on the validation fold, keep the best.

The test fold is dropped as soon as the log is split: nothing here can look at it. Like an experiment's, the work lies
in `<out>.partial` until all of it is there, and a search that was interrupted goes on from its last finished trial; so
does one that was finished, where more trials are asked for.

    recipe.yaml          the resolved recipe
    best.yaml            the same with the best settings in place, ready for `recae compare`
    tune.html            what was tried and what it brought, for reading
    trials.parquet       model, trial, state, metric, value, best_epoch, seconds, settings, reason, curve
    trials/<label>/      a file a trial, to go on from
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from recae.device import is_out_of_memory, resolve_device
from recae.errors import DeviceError, Diverged, ModelError, OutputError
from recae.evaluation import require_values
from recae.experiment import (
    crowding,
    digest_of,
    facts_of,
    is_marked,
    open_workspace,
    read_split,
    require_marks,
    track_setting,
    training_interactions,
    workspace_of,
)
from recae.files import move_directory, refuse_existing, require_place, whole_directory, whole_file
from recae.metrics import Metric
from recae.models import build
from recae.models.base import FitOptions, Recommender, hyper_parameters_of
from recae.notes import counted
from recae.prediction import predictor_of
from recae.progress import Listener, Step, silence
from recae.ranges import Range, plain
from recae.recipe import Recipe
from recae.report.page import write_page
from recae.report.searched import render_search
from recae.report.trials import SearchInput
from recae.search import Proposal, State, Trial, propose
from recae.splitting import Split
from recae.tables import write_table
from recae.tracking import Run, Tracker
from recae.validation import Validation, watched_by

BEST, PAGE = "best.yaml", "tune.html"
DIGEST, FIRST_RUN = ".split", ".run"
"""Beside the trials, hidden as no label is: what they were made from, and where MLflow has the first of them."""

Figures = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found for each label, by which metric on the validation fold, and what a reader must know.

    The first trial of a label is that of the recipe's own settings.
    """

    out: Path
    tracker: Tracker
    trials: Mapping[str, Sequence[Trial]]
    metrics: Mapping[str, Metric]
    caveats: tuple[str, ...]

    def best(self, label: str) -> Trial | None:
        """Return the best of a label's trials that came to their end, the first among equals, or None."""
        return _best([trial for trial in self.trials[label] if trial.state == "complete"], self.metrics[label])

    def table(self) -> pd.DataFrame:
        """Return a row for each trial; its settings as JSON, its curve a list with a figure for each epoch."""
        rows = [
            {
                "model": label,
                "trial": trial.number,
                "state": trial.state,
                "metric": str(self.metrics[label]),
                "value": trial.value,
                "best_epoch": trial.best_epoch,
                "seconds": trial.seconds,
                "settings": json.dumps(trial.settings),
                "reason": trial.reason,
                "curve": trial.curve,
            }
            for label, trials in self.trials.items()
            for trial in trials
        ]
        return pd.DataFrame(rows).astype({"value": "float64", "best_epoch": "Int64"})


@dataclass(frozen=True, eq=False)
class _Setting:
    """What all trials of a search share."""

    split: Split
    seed: int
    device: str
    workspace: Path
    listener: Listener


class _Hopeless(Exception):
    """Ends a training from within its listener."""


def tune(
    recipe: Recipe,
    out: Path,
    *,
    trials: int,
    labels: Sequence[str] = (),
    open_tracker: Callable[[str], Tracker] = Tracker,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener = silence,
) -> Search:
    """Try so many settings of each model that the recipe has ranges for, or of some, and leave what came out in `out`.

    The first are the recipe's own, so that no search ends below them. They are judged on the validation fold by what
    a training of the model is judged by (see `watched_by`), at their best epoch where there are any. Settings that
    diverge, contradict each other or do not fit the memory are trials that failed; all else that goes wrong ends the
    search.
    """
    device = resolve_device(device)
    searched = recipe.to_search(labels)
    require_place(out, BEST, overwrite=overwrite or resume)
    split = without_test(read_split(recipe))
    require_values(recipe.evaluation.parsed, split.validation.held_out.matrix)
    marks = {"recipe.yaml": recipe.resolved(), f"trials/{DIGEST}": digest_of(split)}
    goes_on = resume and is_marked(out, marks)
    if resume and out.exists() and not overwrite:
        require_marks(out, marks)
    if not goes_on:
        refuse_existing(out, overwrite=overwrite)
    elif not workspace_of(out).exists():
        with whole_directory(workspace_of(out)) as draft:
            shutil.copytree(out, draft, dirs_exist_ok=True)
    workspace = open_workspace(out, marks, resume=resume, overwrite=overwrite)
    tracker = open_tracker(recipe.name)
    setting = _Setting(split, recipe.seed, device, workspace, listener)
    with tracker.run(f"tune {recipe.name}") as parent:
        track_setting(parent, recipe, split, device)
        _track_beginning(parent, workspace)
        models = recipe.build_models()
        metrics = {one: watched_by(models[one], recipe.evaluation.parsed[0]) for one in searched}
        found = {
            one: _search(one, models[one], ranges, metrics[one], trials, setting, parent)
            for one, ranges in searched.items()
        }
        caveats = [*_caveats(split, found, models, trials), *_judged_otherwise(metrics, recipe.evaluation.parsed[0])]
        search = Search(out, tracker, found, metrics, tuple(caveats))
        if not any(search.best(one) for one in found):
            one, failed = next(iter(found.items()))
            raise ModelError(f"{one}: every trial failed, first with: {failed[0].reason}")
        _write(search, recipe, split, device, workspace)
        for name in ("recipe.yaml", BEST, "trials.parquet", PAGE):
            parent.artifact(workspace / name)
    shutil.rmtree(workspace / "checkpoints", ignore_errors=True)
    move_directory(workspace, out, overwrite=overwrite or goes_on)
    return search


def without_test(split: Split) -> Split:
    """Return a split that has no test fold: the validation fold stands in its place, and is what models are asked."""
    return replace(split, test=split.validation)


def _search(
    label: str,
    model: Recommender,
    ranges: Mapping[str, Range],
    metric: Metric,
    wanted: int,
    setting: _Setting,
    parent: Run,
) -> list[Trial]:
    """Return a label's trials: those that are there, and those that were missing."""
    folder = setting.workspace / "trials" / label
    trials = [_read(path, place) for place, path in enumerate(sorted(folder.glob("*.json")))]
    own = {key: plain(getattr(model, key)) for key in ranges}
    fold = setting.split.validation
    validation = Validation(fold.history.matrix, fold.held_out.matrix, metric)

    def tell(figures: Figures) -> None:
        best = _best(trials, metric)
        so_far = {} if best is None or best.value is None else {"best": best.value}
        setting.listener(Step(label, len(trials), wanted, {**so_far, **figures}))

    while len(trials) < wanted:
        proposal = propose(ranges, trials, setting.seed, metric.sign)
        if proposal is None:
            break
        proposal = replace(proposal, settings={**own, **proposal.settings})
        number = len(trials)
        checkpoint = setting.workspace / "checkpoints" / f"{label}-{number}.safetensors"
        with parent.tracker.run(f"{label} {number}", parent=parent) as child:
            child.parameters({"model": model.name, **hyper_parameters_of(model), **proposal.settings})
            trial, curve = _try(number, model, proposal, validation, setting, checkpoint, tell)
            with whole_file(folder / f"{number:05}.json", overwrite=True) as draft:
                draft.write_text(trial.model_dump_json(), encoding="utf-8")
            checkpoint.unlink(missing_ok=True)
            child.curve(curve)
            child.figures({"training_seconds": trial.seconds})
            child.tags({"state": trial.state, "reason": trial.reason})
            if trial.value is not None:
                child.figures({f"validation_{metric.key}": trial.value})
        trials.append(trial)
        tell({})
    return trials


def _try(
    number: int,
    model: Recommender,
    proposal: Proposal,
    validation: Validation,
    setting: _Setting,
    checkpoint: Path,
    tell: Callable[[Figures], None],
) -> tuple[Trial, list[Figures]]:
    """Fit a model of the settings proposed and judge it; return what became of it, and the figures of its epochs."""
    figures: list[Figures] = []
    metric = validation.watched

    def hear(step: Step) -> None:
        figures.append(step.figures)
        reached = step.figures.get(metric.key)
        tell({"epoch": step.done} | ({} if reached is None else {"now": reached}))
        if reached is not None and step.done < step.total and proposal.is_hopeless(step.done, reached):
            raise _Hopeless

    tell({})
    state: State = "complete"
    started, reason, value = time.perf_counter(), "", None
    try:
        tried = build(model.name, **{**hyper_parameters_of(model), **proposal.settings})
        if metric.is_of_values and predictor_of(tried) is None:
            raise ModelError(f"{tried!r} has no values to predict, and {metric} is to be measured")
        options = FitOptions(setting.seed, setting.device, validation, checkpoint, hear)
        tried.fit(training_interactions(tried, setting.split).matrix, options)
        if not any(metric.key in one for one in figures):
            value = validation.measure(tried)
    except _Hopeless:
        state = "pruned"
    except (Diverged, ModelError, DeviceError) as error:
        state, reason = "failed", " ".join(str(error).split())
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        state, reason = "failed", f"out of memory on {setting.device}"
    curve = [one[metric.key] for one in figures if metric.key in one]
    best = max(range(len(curve)), key=lambda epoch: metric.sign * curve[epoch], default=None)
    trial = Trial(
        number=number,
        state=state,
        settings=dict(proposal.settings),
        value=None if state == "failed" else value if best is None else curve[best],
        best_epoch=None if best is None else best + 1,
        seconds=round(time.perf_counter() - started, 3),
        curve=curve,
        reason=reason,
    )
    return trial, figures


def _best(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """Return the trial with the best value, the first among equals, or None where none has one."""
    valued = [(metric.sign * trial.value, trial) for trial in trials if trial.value is not None]
    return max(valued, key=lambda pair: pair[0])[1] if valued else None


def _read(path: Path, number: int) -> Trial:
    try:
        trial = Trial.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise OutputError(f"{path} is damaged; start again (--overwrite)") from error
    if trial.number != number:
        raise OutputError(f"{path}: the trials before it are gone; start again (--overwrite)")
    return trial


def _track_beginning(run: Run, workspace: Path) -> None:
    """Tell the first run of a search that goes on, or remember that this is it."""
    first = workspace / "trials" / FIRST_RUN
    if first.exists():
        run.tags({"resumes": first.read_text(encoding="utf-8")})
    elif run.id:
        with whole_file(first) as draft:
            draft.write_text(run.id, encoding="utf-8")


def _caveats(
    split: Split, found: Mapping[str, Sequence[Trial]], models: Mapping[str, Recommender], wanted: int
) -> list[str]:
    caveats = [split.caveat] if split.caveat else []
    for label, trials in found.items():
        failed = [trial for trial in trials if trial.state == "failed"]
        if failed:
            caveats.append(f"{label}: {len(failed)} of {len(trials)} trials failed, first with: {failed[0].reason}")
        if len(trials) < wanted:
            caveats.append(f"{label}: its ranges have no settings that were not tried after {len(trials)} trials")
        if "batch_size" not in trials[0].settings:
            crowded = crowding(models[label], *split.train.matrix.shape)
            caveats += [f"{label}: {counted(users, note)}" for note, users in crowded.items()]
        if not models[label].folds_in:
            caveats.append(f"{label} cannot fold in a new user: it was trained on the validation histories as well")
    return caveats


def _judged_otherwise(metrics: Mapping[str, Metric], main: Metric) -> list[str]:
    """Say which labels were judged by another metric than the recipe's first, which not every model can be."""
    others = dict.fromkeys(metric for metric in metrics.values() if metric != main)
    return [
        f"{', '.join(one for one, metric in metrics.items() if metric == other)}: judged by {other}, which a training "
        f"watches, and not by the recipe's {main}"
        for other in others
    ]


def _write(search: Search, recipe: Recipe, split: Split, device: str, workspace: Path) -> None:
    models = dict(recipe.models)
    for label in search.trials:
        best = search.best(label)
        models[label] = {**models[label], **(best.settings if best else {})}
    tuned = recipe.model_copy(update={"models": models}).resolved()
    told = f"# The best settings of {', '.join(search.trials)} on the validation fold: see trials.parquet.\n"
    with whole_file(workspace / BEST, overwrite=True) as draft:
        draft.write_text(told + tuned, encoding="utf-8")
    table = search.table()
    write_table(workspace / "trials.parquet", table, overwrite=True)
    best_of_each = {label: search.best(label) for label in search.trials}
    page = SearchInput(
        title=recipe.name,
        recipe=tuned,
        ranges=recipe.read_ranges(),
        facts={name: fact for name, fact in facts_of(split, device).items() if name != "test users"},
        caveats=search.caveats,
        trials=table,
        best={label: best.number for label, best in best_of_each.items() if best is not None},
    )
    write_page(workspace / PAGE, render_search(page), overwrite=True)
