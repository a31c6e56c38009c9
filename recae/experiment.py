"""An experiment: split once, fit every model, rank, evaluate, compare, track, and leave the results in one directory.

The directory appears when all of it is there. Until then the work lies beside it in `<out>.partial`, with the finished
models and a checkpoint of the one being trained, and an interrupted experiment can go on from there.

    recipe.yaml              the resolved recipe
    metrics.parquet          model, metric, k, value, ci_low, ci_high, users
    comparisons.parquet      model, other, metric, k, difference, ci_low, ci_high, p_value, p_adjusted, significant
    per_user.parquet         model, user_id, history_length, held_out, a column a metric
    recommendations.parquet  model, user_id, item_id, rank, score, title: for the test fold's users
    report.html              all of it, for reading
    models/<label>/          a model directory a model
"""

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import vstack

import recae
from recae.anomalies import Surprise, surprise_of
from recae.artifact import ModelCard, load_model, save_model
from recae.comparison import compare
from recae.device import is_out_of_memory, resolve_device
from recae.embedding import embed_users
from recae.errors import CannotEmbed, ModelError, OutputError, SplitError
from recae.evaluation import Evaluation, evaluate, places_needed, require_values, summarise
from recae.files import move_directory, require_place, whole_file
from recae.interactions import UNKNOWN, IdMap, Interactions
from recae.metrics import Metric
from recae.models import build
from recae.models.base import Embedder, Explainer, FitOptions, Foresighted, Particular, Recommender, settings_for
from recae.notes import counted, notes
from recae.prediction import predict_held_out, predictor_of
from recae.preparation import Preparation
from recae.profiling import stage
from recae.progress import Listener, silence
from recae.ranking import TopN, top_n
from recae.reading import naming_source, read_interactions, read_parts
from recae.recipe import Expected, Given, GlobalTime, LeaveLastOut, Recipe, StrongGeneralisation
from recae.report import ReportInput, explained_users, mapped_items, write_report
from recae.splitting import Split, given, global_time, leave_last_out, strong_generalisation
from recae.tables import recommendations, write_table
from recae.tracking import Run, Tracker
from recae.validation import Validation, watched_by


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an experiment found: the tables it left in `out`, where it was tracked, and what a reader must know."""

    out: Path
    tracker: Tracker
    metrics: pd.DataFrame
    comparisons: pd.DataFrame
    seconds: Mapping[str, float]
    caveats: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Judged:
    """How a fitted model did on the test fold; the model itself is in its directory, and no longer in memory."""

    directory: Path
    card: ModelCard
    folds_in: bool
    predicts: bool
    top: TopN
    evaluation: Evaluation
    summary: pd.DataFrame
    latent: NDArray[np.float32] | None
    items: NDArray[np.float32] | None
    surprise: Surprise | None
    predicted: NDArray[np.float64] | None

    @property
    def curve(self) -> list[dict[str, float]]:
        """The figures of each epoch, for a model that has epochs."""
        return list(self.card.training.get("curve", []))


def run(
    recipe: Recipe,
    out: Path,
    *,
    open_tracker: Callable[[str], Tracker] = Tracker,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener = silence,
) -> Outcome:
    """Run a recipe and leave its results in `out`, which appears whole; an interrupted run goes on with `resume`.

    Raises InputError for what is wrong with the recipe, its data or the output, before anything is written or tracked.
    """
    device = resolve_device(device)
    require_place(out, "recipe.yaml", overwrite=overwrite)
    split = read_split(recipe)
    finished = [path.name for path in (workspace_of(out) / "models").glob("*")] if resume else []
    require_values(recipe.evaluation.parsed, split.test.held_out.matrix)
    _require_fit(recipe, split, device, but=finished)
    marks = {"recipe.yaml": recipe.resolved(), "checkpoints/split": digest_of(split)}
    workspace = open_workspace(out, marks, resume=resume, overwrite=overwrite)
    tracker = open_tracker(recipe.name)
    judged: dict[str, Judged] = {}
    with tracker.run(recipe.name) as parent:
        track_setting(parent, recipe, split, device)
        for label, model in recipe.build_models().items():
            with tracker.run(label, parent=parent) as child:
                judged[label] = _judge(label, model, recipe, split, workspace, device, listener)
                _track_model(child, judged[label], split)
        outcome = _write_results(recipe, split, judged, workspace, device, tracker)
        for path in sorted(workspace.glob("[!.]*.*")):
            parent.artifact(path)
    shutil.rmtree(workspace / "checkpoints", ignore_errors=True)
    move_directory(workspace, out, overwrite=overwrite)
    return replace(outcome, out=out)


def workspace_of(out: Path) -> Path:
    """Return where an experiment's work lies until all of it is there."""
    return out.parent / f"{out.name}.partial"


def read_split(recipe: Recipe) -> Split:
    """Read a recipe's log and split it as the recipe says; what was left out of the log is among the split's counts."""
    if isinstance(recipe.split, Given):
        with naming_source(recipe.data):
            parts = read_parts(recipe.data)
            rule = recipe.split
            split = given(
                parts, seed=rule.seed, validation_users=rule.validation_users, held_out_share=rule.held_out_share
            )
        counts = sum((Counter(part.counts) for part in parts.values()), Counter[str]())
        return replace(split, counts={**notes(counts, recipe.data.model_dump()), **split.counts})
    otherwise = "is asked for; set data.{rule} to the same or leave it out, or prepare the log again"
    interactions = read_interactions(recipe.data, otherwise=otherwise, learned_from=True)
    with naming_source(recipe.data, interactions.counts):
        split = _split(interactions, recipe.split)
        _require_expected(recipe.expect, interactions, split)
    return replace(split, counts={**notes(interactions.counts, recipe.data.model_dump()), **split.counts})


def training_interactions(model: Recommender, split: Split) -> Interactions:
    """Return what a model may be trained on before it is asked about the test fold.

    A model that cannot fold in a new user must have seen the histories it will be asked about: it is trained on the
    test fold's histories (never their held-out items) and on the training users that are not among them.
    """
    if model.folds_in:
        return split.train
    asked = split.test.history
    others = split.train.rows(np.flatnonzero(asked.users.to_index(split.train.users.ids) == UNKNOWN))
    return Interactions(
        matrix=vstack([others.matrix, asked.matrix], format="csr"),
        users=IdMap(others.users.ids.append(asked.users.ids)),
        items=asked.items,
        item_table=asked.item_table,
    )


def gives_away(split: Split) -> bool:
    """Return whether the test histories hold what users of the validation fold hold out: the same users, later on.

    A model that is trained on these histories knows what validation asks for, and cannot stop early by it.
    """
    validation, asked = split.validation, split.test.history
    row = asked.users.to_index(validation.history.users.ids)
    known = row != UNKNOWN
    return bool(asked.matrix[row[known]].multiply(validation.held_out.matrix[known]).nnz)


def fit_into(
    directory: Path,
    model: Recommender,
    interactions: Interactions,
    preparation: Preparation,
    options: FitOptions,
    *,
    overwrite: bool = False,
) -> None:
    """Fit a model and save it as a model directory, with what its training took and showed."""
    started = time.perf_counter()
    try:
        with stage("fit"):
            model.fit(interactions.matrix, options)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            users, items = interactions.matrix.shape
            raise ModelError(
                f"{model!r} does not fit the memory of {options.device} with {users:,} users and {items:,} items; "
                "choose smaller settings"
            ) from error
        raise
    training: dict[str, Any] = {
        "seconds": round(time.perf_counter() - started, 3),
        "device": options.device,
        "fewest_items": int(np.diff(interactions.matrix.indptr).min()),  # of any user: of shorter ones it knows nothing
    }
    summary = getattr(model, "training_", None)
    if summary is not None:
        training |= asdict(summary)
    with stage("save the model"):
        save_model(
            directory,
            model,
            interactions,
            preparation=preparation,
            seed=options.seed,
            training=training,
            overwrite=overwrite,
        )


def _split(interactions: Interactions, rule: StrongGeneralisation | GlobalTime | LeaveLastOut) -> Split:
    if isinstance(rule, GlobalTime):
        return global_time(interactions, validation_share=rule.validation_share, test_share=rule.test_share)
    if isinstance(rule, LeaveLastOut):
        return leave_last_out(interactions)
    held_out_users = rule.held_out_users
    if isinstance(held_out_users, float):
        held_out_users = max(1, round(held_out_users * len(interactions.users)))
    return strong_generalisation(
        interactions, held_out_users=held_out_users, seed=rule.seed, held_out_share=rule.held_out_share
    )


def _require_expected(expect: Expected, interactions: Interactions, split: Split) -> None:
    found = {
        "users": len(interactions.users),
        "interactions": interactions.matrix.nnz,
        "items": len(split.train.items),
    }
    for what, number in expect.model_dump(exclude_none=True).items():
        if found[what] != number:
            raise SplitError(
                f"{found[what]:,} {what}, and the recipe expects {number:,}; is this the whole data set, by the same "
                f"rules? if another is meant, leave out expect.{what} (--set expect.{what}=null)"
            )


def _require_fit(recipe: Recipe, split: Split, device: str, *, but: Sequence[str]) -> None:
    """Ask every model that can tell whether values and memory will do, so that none before it is fitted in vain."""
    for label, model in recipe.build_models().items():
        if label not in but:
            histories = training_interactions(model, split).matrix
            try:
                if isinstance(model, Particular):
                    model.require_values(histories)
                if isinstance(model, Foresighted):
                    model.require_memory(histories, device)
            except ModelError as error:
                raise ModelError(f"models.{label}: {error}, or leave it out of the recipe") from None


def crowding(model: Recommender, users: int, items: int) -> dict[str, int]:
    """Return a note where all training users fit into one batch of a network's, which is slow to learn then."""
    size = settings_for(model, items).get("batch_size", 0)
    note = f"users to train on fit into one batch (batch_size {size}): one update an epoch; a smaller one learns faster"
    return {note: users} if users <= size else {}


def open_workspace(out: Path, marks: Mapping[str, str], *, resume: bool, overwrite: bool) -> Path:
    """Return the directory to work in for `out`: a new one, or that of an interrupted run with the same marks.

    `marks` are what two files in it hold, by their names: the recipe, and the digest of its data.
    """
    workspace = workspace_of(out)
    if resume:
        if not workspace.exists():
            raise OutputError(f"{workspace}: there is no interrupted run to resume; leave out --resume")
        first, *others = marks
        if (workspace / first).is_file():
            # Killed before all marks were there, it had not come to anything that they tell of.
            _write_marks(workspace, {mark: marks[mark] for mark in others if not (workspace / mark).exists()})
        require_marks(workspace, marks)
        for leftover in workspace.rglob(".*.partial"):
            shutil.rmtree(leftover)
        return workspace
    begun = workspace.exists() and (not workspace.is_dir() or any(workspace.glob("[!.]*")))
    if begun and not (workspace / next(iter(marks))).is_file():
        raise OutputError(f"{workspace} is in the way, and was not written by this command; move it, or choose --out")
    if begun and not overwrite:
        raise OutputError(
            f"{workspace} holds a run that was interrupted, or still goes on; wait for it, go on with it (--resume), "
            "or start again (--overwrite)"
        )
    shutil.rmtree(workspace, ignore_errors=True)
    try:
        _write_marks(workspace, marks)
    except OutputError:
        shutil.rmtree(workspace, ignore_errors=True)
        raise
    return workspace


def _write_marks(workspace: Path, marks: Mapping[str, str]) -> None:
    for mark, content in marks.items():
        with whole_file(workspace / mark) as draft:
            draft.write_text(content, encoding="utf-8")


def require_marks(directory: Path, marks: Mapping[str, str]) -> None:
    """Raise OutputError unless a directory has these marks of `open_workspace`."""
    for mark, what in zip(marks, ("another recipe", "other data"), strict=True):
        if not is_marked(directory, {mark: marks[mark]}):
            raise OutputError(f"{directory} was begun with {what}; start again instead (--overwrite)")


def is_marked(directory: Path, marks: Mapping[str, str]) -> bool:
    """Return whether a directory has these marks of `open_workspace`."""
    there = {directory / mark: content for mark, content in marks.items()}
    return all(path.exists() and path.read_text(encoding="utf-8") == content for path, content in there.items())


def digest_of(split: Split) -> str:
    """Return one digest of all that a split holds."""
    folds = (split.validation, split.test)
    parts = [split.train, *(side for fold in folds for side in (fold.history, fold.held_out))]
    return hashlib.sha256("".join(part.digest() for part in parts).encode()).hexdigest()


def _judge(
    label: str, model: Recommender, recipe: Recipe, split: Split, workspace: Path, device: str, listener: Listener
) -> Judged:
    """Fit a model, or take it from an interrupted run that had finished it, and evaluate it on the test fold."""
    directory = workspace / "models" / label
    if not directory.exists():
        fold, watched = split.validation, watched_by(model, recipe.evaluation.parsed[0])
        blind = not model.folds_in and gives_away(split)
        options = FitOptions(
            seed=recipe.seed,
            device=device,
            validation=None if blind else Validation(fold.history.matrix, fold.held_out.matrix, watched),
            checkpoint=workspace / "checkpoints" / f"{label}.safetensors",
            listener=lambda step: listener(replace(step, task=label)),
        )
        fit_into(directory, model, training_interactions(model, split), recipe.data.preparation, options)
    # Evaluated as others will use it: from the directory, not from the memory of the training.
    fitted = load_model(directory, device)
    history, held_out = split.test.history.matrix, split.test.held_out.matrix
    metrics = recipe.evaluation.parsed
    top = top_n(fitted.model.score, history, places_needed(metrics), listener=listener, task=label)
    predict = predictor_of(fitted.model) if any(metric.is_of_values for metric in metrics) else None
    predicted = predict_held_out(predict, history, held_out) if predict is not None else None
    evaluation = evaluate(top, history, held_out, metrics, split.train.matrix, predicted)
    summary = summarise(evaluation)
    summary.insert(0, "model", label)
    latent = embed_users(fitted.model, history) if isinstance(fitted.model, Embedder) else None
    items = _item_vectors(fitted.model, mapped_items(split.train.matrix))
    surprise = None
    if isinstance(fitted.model, Explainer) and fitted.model.folds_in:
        asked = history[explained_users(history.shape[0])]
        surprise = surprise_of(fitted.model, asked, seed=recipe.seed)
    able = fitted.model.folds_in, predictor_of(fitted.model) is not None
    return Judged(directory, fitted.card, *able, top, evaluation, summary, latent, items, surprise, predicted)


def _item_vectors(model: Recommender, columns: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Return the vectors of some items; None for a model that has none."""
    try:
        return model.embed_items()[columns].cpu().numpy() if isinstance(model, Embedder) else None
    except CannotEmbed:
        return None


def _write_results(
    recipe: Recipe, split: Split, judged: Mapping[str, Judged], workspace: Path, device: str, tracker: Tracker
) -> Outcome:
    metrics = pd.concat([one.summary for one in judged.values()], ignore_index=True)
    main = recipe.evaluation.parsed[0]
    comparisons = compare({label: one.evaluation for label, one in judged.items()}, main)
    per_user = pd.concat([_per_user(label, one, split) for label, one in judged.items()], ignore_index=True)
    history, train = split.test.history, split.train
    recommended = pa.concat_tables(
        [
            recommendations(one.top, history.users, train.items, train.item_table).add_column(
                0, "model", pa.array([label] * int((one.top.items >= 0).sum()))
            )
            for label, one in judged.items()
        ]
    )
    write_table(workspace / "metrics.parquet", metrics, overwrite=True)
    write_table(workspace / "comparisons.parquet", comparisons, overwrite=True)
    write_table(workspace / "per_user.parquet", per_user, overwrite=True)
    write_table(workspace / "recommendations.parquet", recommended, overwrite=True)
    seconds = {label: float(one.card.training["seconds"]) for label, one in judged.items()}
    caveats = tuple(_caveats(split, judged, recipe.evaluation.parsed))
    write_report(
        workspace / "report.html",
        ReportInput(
            title=recipe.name,
            recipe=recipe.resolved(),
            facts=facts_of(split, device)
            | {f"seconds to train {label}": f"{taken:.1f}" for label, taken in seconds.items()},
            caveats=caveats,
            metrics=metrics,
            main_metric=main,
            comparisons=comparisons,
            per_user=per_user,
            curves={label: pd.DataFrame(one.curve) for label, one in judged.items() if one.curve},
            top={label: one.top for label, one in judged.items()},
            train=train,
            fold=split.test,
            user_embeddings={label: one.latent for label, one in judged.items() if one.latent is not None},
            item_embeddings={label: one.items for label, one in judged.items() if one.items is not None},
            surprises={label: one.surprise for label, one in judged.items() if one.surprise is not None},
            predicted={label: one.predicted for label, one in judged.items() if one.predicted is not None},
            chosen={label: one.card.training.get("chosen", {}) for label, one in judged.items()},
        ),
        overwrite=True,
    )
    return Outcome(workspace, tracker, metrics, comparisons, seconds, caveats)


def _per_user(label: str, judged: Judged, split: Split) -> pd.DataFrame:
    users = pd.DataFrame(
        {
            "model": label,
            "user_id": split.test.history.users.ids,
            "history_length": np.diff(split.test.history.matrix.indptr),
            "held_out": np.diff(split.test.held_out.matrix.indptr),
        }
    )
    return pd.concat([users, judged.evaluation.per_user.reset_index(drop=True)], axis="columns")


def facts_of(split: Split, device: str) -> dict[str, str]:
    """Return what a page says of how it was made: when, by what, from which data."""
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "recae": recae.__version__,
        "device": device,
        "training users": f"{len(split.train.users):,}",
        "items": f"{len(split.train.items):,}",
        "training events": f"{split.train.matrix.nnz:,}",
        "validation users": f"{len(split.validation.history.users):,}",
        "test users": f"{len(split.test.history.users):,}",
        "training data": split.train.digest()[:16],
    }


def _caveats(split: Split, judged: Mapping[str, Judged], metrics: Sequence[Metric]) -> list[str]:
    caveats = [split.caveat] if split.caveat else []
    caveats += [counted(count, what) for what, count in split.counts.items()]
    caveats += [counted(count, f"events left out: {reason}") for reason, count in split.dropped.items()]
    for label, one in judged.items():
        if silent := [str(metric) for metric in metrics if metric.is_of_values and not one.predicts]:
            caveats.append(f"{label} orders items and predicts no values: it has no {', '.join(silent)}")
        model = build(one.card.model, **one.card.hyper_parameters)
        for note, users in crowding(model, one.card.data.users, one.card.data.items).items():
            caveats.append(f"{label}: {counted(users, note)}")
        if not one.folds_in:
            caveats.append(f"{label} cannot fold in a new user: it was trained on the test users' histories as well")
            if "patience" in one.card.hyper_parameters and gives_away(split):
                caveats.append(f"{label} knew so what the validation users hold out: it did not stop early by them")
    return caveats


def track_setting(run: Run, recipe: Recipe, split: Split, device: str) -> None:
    """Track what is the same for all models of a run: the data, the split, what is measured."""
    setting = recipe.model_dump(exclude={"models", "tune", "seed"})
    run.parameters({"seed": recipe.seed, "device": device, **_flat(setting)})
    run.dataset(split.train.digest(), name=recipe.name, source=recipe.data.path)


def _track_model(run: Run, judged: Judged, split: Split) -> None:
    run.parameters({"model": judged.card.model, **judged.card.hyper_parameters})
    run.curve(judged.curve)
    figures: dict[str, float] = {}
    for row in judged.summary.to_dict("records"):
        key = Metric(row["metric"], row["k"]).key
        figures |= {key: row["value"], f"{key}_ci_low": row["ci_low"], f"{key}_ci_high": row["ci_high"]}
    run.figures(figures)
    run.figures({"training_seconds": float(judged.card.training["seconds"])})
    run.model(judged.directory)


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
