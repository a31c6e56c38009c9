"""What is done with one model, day by day: train, recommend, embed, evaluate; or evaluate anybody's rankings."""

import glob
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.artifact import CARD, FittedModel, ModelCard, read_card
from recae.device import resolve_device
from recae.embedding import embed_users, kinds_of
from recae.errors import (
    CannotEmbed,
    CannotFoldIn,
    CannotPredict,
    Diverged,
    EventsError,
    ModelError,
    OutputError,
    RecipeError,
)
from recae.evaluation import Evaluation, evaluate, places_needed, require_values
from recae.events import ITEM, VALUE, Columns, Events, EventStream, open_events, read_events
from recae.experiment import crowding, fit_into
from recae.files import require_place
from recae.interactions import UNKNOWN, Interactions, read_prepared
from recae.metrics import Metric
from recae.models import MODELS, build
from recae.models.base import Embedder, EmbeddingKind, FitOptions, Recommender, Transductive, settings_for
from recae.notes import notes
from recae.prediction import predict_held_out, predictor_of
from recae.preparation import prepared_at
from recae.profiling import stage
from recae.progress import Listener, silence
from recae.ranking import NO_ITEM, ranked_lists, top_n
from recae.reading import DataSection, naming_source, read_interactions, require_usual
from recae.sources import column_names, file_at
from recae.splitting import SHORTEST_TO_HOLD_OUT, Fold, hold_out, hold_out_users, unseen
from recae.tables import embeddings, recommendations, write_table
from recae.validation import Validation, watched_by


@dataclass(frozen=True, eq=False)
class Written:
    """A table that was written, its rows, and what deserves a note: see `recae.notes`."""

    path: Path
    rows: int
    notes: Mapping[str, int] = field(default_factory=dict)


def checkpoint_of(out: Path) -> Path:
    """Return where the checkpoint of a training lies until its model directory is there."""
    return out.parent / f"{out.name}.checkpoint"


def trace_of(out: Path) -> Path:
    """Return where the trace of a training lies that a profile is taken of."""
    return out.parent / f"{out.name}.trace.json"


def train(
    model: Recommender,
    data: DataSection,
    out: Path,
    *,
    validation_share: float | None = None,
    seed: int = 42,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener = silence,
) -> tuple[ModelCard, Mapping[str, int]]:
    """Fit a model on the events of a log, and write its directory; return its card, and what deserves a note.

    A share of the users can be kept from training to stop early by; without it an iterative model runs all its
    epochs. None is what the model `keeps`: nothing, unless it has more to choose than when to stop. Its checkpoint lies
    beside the directory until that is there; `resume` goes on from it.
    """
    device = resolve_device(device)
    require_place(out, CARD, overwrite=overwrite)
    checkpoint = checkpoint_of(out)
    if resume and not checkpoint.exists():
        raise OutputError(f"{checkpoint}: there is no interrupted training to resume; leave out --resume")
    if checkpoint.is_dir():
        raise OutputError(f"{checkpoint} is a directory, where the training keeps its checkpoint; choose another --out")
    if checkpoint.exists() and not (resume or overwrite):
        raise OutputError(
            f"{checkpoint} holds a training that was interrupted, or still goes on; wait for it, go on with it "
            "(--resume), or start again (--overwrite)"
        )
    if validation_share and not hasattr(model, "patience"):
        raise ModelError(f"{model.name} has no epochs to stop early; leave out --validation-share")
    if validation_share is None:
        validation_share = getattr(model, "keeps", 0.0)
    with stage("read the log"):
        interactions, validation = read_interactions(data, learned_from=True), None
    told = notes(interactions.counts, data.model_dump())
    for ids, what in ((interactions.users, "user"), (interactions.items, "item")):
        if len(ids) < 2:
            raise EventsError(f"{data.path}: one {what} is left, {ids.ids[0]}, and there is nothing to compare it with")
    if validation_share:
        held_out_users = max(1, round(validation_share * len(interactions.users)))
        items = len(interactions.items)
        with naming_source(data, interactions.counts):
            interactions, fold = hold_out_users(interactions, held_out_users=held_out_users)
        validation = Validation(fold.history.matrix, fold.held_out.matrix, watched_by(model))
        told |= {"users kept from training, to stop early by": held_out_users}
        told |= _not_zero({"items that only these users have: unknown to the model": items - len(interactions.items)})
    elif hasattr(model, "patience"):
        epochs = settings_for(model, len(interactions.items))["epochs"]
        told |= {"epochs, all of them; --validation-share 0.1 would keep users to stop early by": epochs}
    told |= crowding(model, *interactions.matrix.shape)
    options = FitOptions(seed, device, validation, checkpoint, listener)
    if checkpoint.exists() and not resume:
        # Not before everything else has been found in order: it may be hours of work.
        checkpoint.unlink()
    try:
        fit_into(out, model, interactions, data.preparation, options, overwrite=overwrite)
    except Diverged:
        # Nobody wants to go on from there.
        checkpoint.unlink(missing_ok=True)
        raise
    checkpoint.unlink(missing_ok=True)
    for leftover in out.parent.glob(f".{glob.escape(checkpoint.name)}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a training that was killed while it wrote
    return read_card(out), told


@dataclass(frozen=True, eq=False)
class Histories:
    """A log as a model reads it, and all that its users have: `seen` (users, items) has events below a threshold too.

    `below` counts the users who have no row, because all their events are below the threshold. `untold` counts events
    below it whose items nobody can tell any more, as the log was prepared without them: `seen` lacks them.
    """

    histories: Interactions
    seen: csr_matrix
    below: int = 0
    untold: int = 0


def read_histories(
    model: FittedModel, source: str | Path, *, columns: Columns = Columns(), skip_bad_rows: bool = False
) -> Histories:
    """Read a log as histories over the model's items, prepared as the model's training data was; or open one that is.

    Events of items the model does not know are dropped and counted; EventsError if that leaves nothing at all, or if
    the log was prepared by other rules.
    """
    directory = prepared_at(source)
    if directory is not None:
        require_usual(directory, columns)
        return _open_histories(model, directory)
    events = open_events(source, columns=columns, skip_bad_rows=skip_bad_rows)
    histories = Interactions.from_events(events, items=model.items, preparation=model.card.preparation)
    if not histories.matrix.nnz:
        raise _strangers(model, events.source, _first_item(events))
    if model.card.preparation.min_value is None:
        return Histories(histories, histories.matrix)
    everything = Interactions.from_events(events, items=model.items)
    below = len(everything.users) - len(histories.users)
    return Histories(histories, _as_rows(everything, histories).matrix, below)


def _open_histories(model: FittedModel, directory: Path) -> Histories:
    """Open a prepared log as histories: EventsError unless it was prepared as the model's training data was.

    How few items a user may have is no matter of the model's, nor is which of several events stayed where each is 1.
    """
    asked = asdict(model.card.preparation)
    if asked["values"] == "binary":
        del asked["duplicates"]
    trained = "is what the model was trained with; prepare the log again with that, or give the log itself"
    prepared = read_prepared(directory, asked, otherwise=trained)
    histories = prepared.over(model.items)
    if not histories.matrix.nnz:
        raise _strangers(model, str(directory), prepared.items.ids[0])
    return Histories(histories, histories.matrix, untold=histories.counts.get("below_min_value", 0))


def _strangers(model: FittedModel, source: str, item: int | str) -> EventsError:
    return EventsError(
        f"{source}: the model knows none of its items, such as {item}; "
        f"its own are called {model.items.ids[0]}, …: are these the same catalogue?"
    )


def _first_item(events: Events | EventStream) -> int | str:
    def first(piece: pa.Table) -> list[int | str]:
        ids: list[int | str] = piece[ITEM][:1].to_pylist()
        return ids

    return next(item for items, _ in events.pieces(first) for item in items)


def recommend(
    model: FittedModel,
    read: Histories,
    n: int,
    out: Path,
    *,
    keep_seen: bool = False,
    overwrite: bool = False,
    listener: Listener = silence,
) -> Written:
    """Write the top n of every user as a table of recommendations.

    Nobody is recommended what they have already, even where it counted for too little to be in the history: EventsError
    for a log that was prepared without such events, unless `keep_seen`. A user none of whose items the model knows gets
    none: they would not be about the user. They are counted.
    """
    if read.untold and not keep_seen:
        raise EventsError(
            f"the log was prepared without {read.untold:,} events below its threshold, and their items would be "
            "recommended to those who like them least; give the log itself (or --keep-seen)"
        )
    histories = read.histories
    filled = np.diff(histories.matrix.indptr) > 0
    known = _known_to(model, histories)
    asked = np.flatnonzero(filled & known)
    users = histories.rows(asked)
    top = top_n(
        model.model.score,
        users.matrix,
        n,
        seen=read.seen[asked],
        keep_seen=keep_seen,
        listener=listener,
        task="recommend",
    )
    table = recommendations(top, users.users, model.items, model.item_table)
    write_table(out, table, about={"model": model.card.model, "digest": model.digest, "n": n}, overwrite=overwrite)
    told = {
        f"{_STRANGERS}: no recommendations": int((~filled).sum()),
        f"{_UNTRAINED}: no recommendations": int((filled & ~known).sum()),
        f"{BELOW}: no recommendations": read.below,
    }
    return Written(out, table.num_rows, notes_on(model, histories) | _not_zero(told))


def embed(
    model: FittedModel,
    read: Histories,
    kind: EmbeddingKind,
    out: Path,
    *,
    overwrite: bool = False,
    listener: Listener = silence,
) -> Written:
    """Write a vector for every user as a table of embeddings."""
    embedder, histories = require_embedder(model), read.histories
    known = _known_to(model, histories)
    untrained, histories = int((~known).sum()), replace(histories.rows(known), counts=histories.counts)
    vectors = embed_users(embedder, histories.matrix, kind, listener=listener)
    table = embeddings(vectors, histories.users, "user_id")
    write_table(out, table, about=_about(model, kind, vectors.shape[1]), overwrite=overwrite)
    strangers = int((np.diff(histories.matrix.indptr) == 0).sum())
    told = {
        f"{_STRANGERS}: all of them have the vector of an empty history": strangers,
        f"{_UNTRAINED}: no vector": untrained,
        f"{BELOW}: no vector": read.below,
    }
    return Written(out, table.num_rows, notes_on(model, histories) | _not_zero(told))


def require_embedder(model: FittedModel) -> Embedder:
    """Return the model if it has embeddings; CannotEmbed if not."""
    if isinstance(model.model, Embedder):
        return model.model
    able = ", ".join(name for name, one in MODELS.items() if hasattr(one, "embed_users"))
    raise CannotEmbed(f"{model.card.model} has no embeddings; these models have: {able}")


def embed_items(
    model: FittedModel, out: Path, *, kind: EmbeddingKind = "retrieval", overwrite: bool = False
) -> Written:
    """Write every item's retrieval vector: its inner product with a user's retrieval vector is the score.

    Raises CannotEmbed for any other kind, as the bottleneck has users alone, and for a model whose items have none.
    """
    embedder = require_embedder(model)
    try:
        vectors = embedder.embed_items().cpu().numpy()
    except CannotEmbed:
        able = ", ".join(name for name in MODELS if "retrieval" in kinds_of(build(name)))
        raise CannotEmbed(f"{model.card.model} has no vectors of items; these models have: {able}") from None
    if kind != "retrieval":
        raise CannotEmbed(f"{model.card.model} has no {kind} vectors of items; those it has are of the kind retrieval")
    table = embeddings(vectors, model.items, "item_id")
    write_table(out, table, about=_about(model, "retrieval", vectors.shape[1]), overwrite=overwrite)
    return Written(out, table.num_rows)


def learned_values(model: FittedModel) -> bool:
    """Return whether a model learned what values an item gets, and not who touches what: it is asked for rmse first."""
    able = predictor_of(model.model) is not None and getattr(model.model, "unseen", 0) == 0
    return able and asdict(model.card.preparation)["values"] == "keep"


def evaluate_model(
    model: FittedModel,
    source: str | Path,
    metrics: Sequence[Metric],
    *,
    held_out: str | Path | None = None,
    columns: Columns = Columns(),
    skip_bad_rows: bool = False,
    seed: int = 98765,
    listener: Listener = silence,
) -> tuple[Evaluation, Mapping[str, int]]:
    """Evaluate a model on users' histories: against a log of held-out events, or against a fifth of each history.

    The metrics of the catalogue are taken over these histories, as the training data need not be here. Returns the
    evaluation, and what deserves a note.
    """
    of_values = [str(metric) for metric in metrics if metric.is_of_values]
    predict = predictor_of(model.model) if of_values else None
    if of_values and predict is None:
        raise CannotPredict(
            f"{model.card.model}, as it was trained, orders items and predicts no values; "
            f"leave out {', '.join(of_values)}"
        )
    if of_values and asdict(model.card.preparation)["values"] == "binary":
        raise RecipeError(
            f"metric '{of_values[0]}' compares values, and the model was trained on ones; train it with --values keep, "
            "or leave the metric out"
        )
    of_histories, of_held_out = columns_beside(source, columns, held_out), columns_beside(held_out, columns, source)
    histories = read_histories(model, source, columns=of_histories, skip_bad_rows=skip_bad_rows).histories
    told = notes_on(model, histories)
    if held_out is None:
        fold = hold_out(histories, seed=seed, share=0.2)
        remedy = f"a fifth of a history can be held out from {SHORTEST_TO_HOLD_OUT} items on; --held-out names a log"
    else:
        wanted = read_histories(model, held_out, columns=of_held_out, skip_bad_rows=skip_bad_rows).histories
        seen = _as_rows(histories, wanted)
        fold = Fold(seen, unseen(wanted, seen))
        told |= {f"held-out {note}": count for note, count in notes_on(model, wanted).items()}
        again = wanted.matrix.nnz - fold.held_out.matrix.nnz
        told["held-out events whose item is in the user's history too: left out"] = again
        remedy = "the held-out items must not be in EVENTS"
    if not fold.held_out.matrix.nnz:
        raise EventsError(f"{held_out or source}: no user has a held-out item that the model could find; {remedy}")
    if isinstance(model.model, Transductive) and not model.model.knows(fold.history.matrix).all():
        raise CannotFoldIn(
            f"{model.card.model} cannot be evaluated on histories it was not trained on, as a part of one is; "
            "recae compare trains it on the histories that are asked about"
        )
    history, hidden = fold.history.matrix, fold.held_out.matrix
    try:
        require_values(metrics, hidden)
    except RecipeError as error:
        logs = {source: of_histories} if held_out is None else {source: of_histories, held_out: of_held_out}
        without = next((log for log, names in logs.items() if not _has_values(log, names, skip_bad_rows)), None)
        if without is None:
            raise
        raise EventsError(
            f"{without}: no column of values found; name it with --value-col, or leave out {', '.join(of_values)}"
        ) from error
    top = top_n(model.model.score, history, places_needed(metrics), listener=listener, task="rank")
    predicted = predict_held_out(predict, history, hidden) if predict is not None else None
    evaluation = evaluate(top, history, hidden, metrics, history, predicted)
    told["users asked about: where the model was trained on them too, these figures flatter it"] = evaluation.users
    told["users without a held-out item: not evaluated"] = evaluation.without_target
    told["users without a history that the model knows anything of: evaluated all the same"] = (
        evaluation.without_history
    )
    return evaluation, told


def evaluate_recommendations(
    source: str | Path,
    held_out: str | Path,
    metrics: Sequence[Metric],
    *,
    columns: Columns = Columns(),
    skip_bad_rows: bool = False,
) -> tuple[Evaluation, Mapping[str, int]]:
    """Evaluate anybody's recommendations: rows of user, item and rank (or score), against rows of user and item.

    Every user of the held-out file counts, one without recommendations as a miss. Returns the evaluation, and what
    deserves a note. RecipeError for a metric of the catalogue, or of values: a file of recommendations tells neither.
    """
    of_values = next((metric for metric in metrics if metric.is_of_values), None)
    if of_values is not None:
        raise RecipeError(f"metric '{of_values}' compares values, and recommendations tell none; leave it out")
    wanted = _wanted(held_out, columns, skip_bad_rows)
    offered = _read_ranked(source, columns, skip_bad_rows)
    row = wanted.users.to_index(offered["user_id"])
    column = wanted.items.to_index(offered["item_id"])
    met = row != UNKNOWN
    if not met.any():
        raise EventsError(f"{source}: none of its users is in {held_out}; are these the same users?")
    top = ranked_lists(
        row, column, offered["rank"].to_numpy(), len(wanted.users), places_needed(metrics), source=str(source)
    )
    nothing = csr_matrix(wanted.matrix.shape)
    evaluation = evaluate(top, nothing, wanted.matrix, metrics)
    lengths = (top.items[np.unique(row[met])] != NO_ITEM).sum(axis=1)
    return evaluation, {
        **notes(wanted.counts),
        **_cut_short(metrics, lengths),
        "users with held-out items, but without recommendations: they count as misses": (
            len(wanted.users) - len(np.unique(row[met]))
        ),
        "users with recommendations, but without held-out items: left out": int(offered["user_id"][~met].nunique()),
    }


def _cut_short(metrics: Sequence[Metric], lengths: NDArray[np.int64]) -> dict[str, int]:
    """Return a note where lists of these lengths end before the last place that some of the metrics look at."""
    deep = ", ".join(str(metric) for metric in metrics if metric.k > lengths.min())
    short = lengths[lengths < places_needed(metrics)]
    if not deep:
        return {}
    found = f"{short.min()}" if short.min() == short.max() else f"{short.min()} to {short.max()}"
    return {f"users have a list too short for {deep}, {found} long: its missing places count as misses": len(short)}


def _has_values(log: str | Path, columns: Columns, skip_bad_rows: bool) -> bool:
    """Return whether a log has a column of values; one that is prepared has something in its place."""
    return (
        prepared_at(log) is not None or VALUE in open_events(log, columns=columns, skip_bad_rows=skip_bad_rows).columns
    )


def columns_beside(log: str | Path | None, columns: Columns, beside: str | Path | None) -> Columns:
    """Return the column names that hold for one of two logs: none for a prepared one, if the other can have them."""
    if log is None or beside is None or prepared_at(log) is None or prepared_at(beside) is not None:
        return columns
    return Columns()


def _wanted(held_out: str | Path, columns: Columns, skip_bad_rows: bool) -> Interactions:
    """Read who is to be recommended what: the ids alone of a log; or one that is prepared, whatever the names.

    They are those of the recommendations then.
    """
    directory = prepared_at(held_out)
    if directory is not None:
        return read_prepared(directory)
    ids_alone = replace(columns, value="", time="")
    return Interactions.from_events(open_events(held_out, columns=ids_alone, skip_bad_rows=skip_bad_rows))


def _read_ranked(source: str | Path, columns: Columns, skip_bad_rows: bool) -> pd.DataFrame:
    """Read a recommendation file as user_id, item_id and rank; where it has no ranks, its scores give them."""
    names = column_names(file_at(_table(source)))
    place = columns.value
    if place is None:
        place = next((name for name in ("rank", "score") if name in names), None)
    if place is None:
        raise EventsError(f"{source}: no column 'rank' or 'score'; name the one of the scores with --value-col")
    # A log's own column names need not be those of the recommendations made from it.
    user, item = (name if name in names else None for name in (columns.user, columns.item))
    wanted = Columns(user=user, item=item, value=place, time="")
    table: pd.DataFrame = read_events(source, columns=wanted, skip_bad_rows=skip_bad_rows).table.to_pandas()
    value = table["value"]
    if place != "rank":
        value = value.groupby(table["user_id"], observed=True).rank(method="first", ascending=False)
    elif (value != value.round()).any():
        raise EventsError(f"{source}: {value[value != value.round()].iloc[0]:g} is no rank; ranks are 1, 2, 3, …")
    return table.assign(rank=value.astype(np.int64))


def _table(source: str | Path) -> Path:
    path = Path(source)
    if not path.is_file():
        raise EventsError(f"{path}: no such file; recommendations are a table, such as .parquet or .csv")
    return path


def _as_rows(histories: Interactions, like: Interactions) -> Interactions:
    """Return the histories of another part's users, in its order; empty where a user has none."""
    row = histories.users.to_index(like.users.ids)
    known = row != UNKNOWN
    picked = histories.matrix[row[known]]  # a product would lose the zeros that are stored
    lengths = np.zeros(len(row), np.int64)
    lengths[known] = np.diff(picked.indptr)
    kept: Any = (picked.data, picked.indices, np.append(0, np.cumsum(lengths)))
    matrix = csr_matrix(kept, shape=(len(row), picked.shape[1]))
    matrix.sort_indices()
    return Interactions(matrix, like.users, histories.items, histories.item_table)


def _known_to(model: FittedModel, histories: Interactions) -> NDArray[np.bool_]:
    """Return for each history whether the model can score it; CannotFoldIn if it can score none."""
    if not isinstance(model.model, Transductive):
        return np.ones(len(histories.users), dtype=bool)
    known = model.model.knows(histories.matrix)
    if not known.any():
        raise CannotFoldIn(
            f"{model.card.model} knows only the histories it was trained on, and that of user {histories.users.ids[0]} "
            "is none of them, nor is any other; train it on this very log, or use a model that folds in, such as als"
        )
    return known


_STRANGERS = "users without an item the model knows"
BELOW = "users without an event that counts"
_UNTRAINED = "users the model was not trained on, and cannot fold in"


def notes_on(model: FittedModel, histories: Interactions) -> dict[str, int]:
    """Return the notes on histories, with the model's own threshold in place of its name."""
    threshold = f"the model's min_value of {model.card.preparation.min_value}"
    return {note.replace("min_value", threshold): count for note, count in notes(histories.counts).items()}


def _not_zero(counts: Mapping[str, int]) -> dict[str, int]:
    return {note: count for note, count in counts.items() if count}


def _about(model: FittedModel, kind: EmbeddingKind, dimension: int) -> dict[str, object]:
    return {"model": model.card.model, "digest": model.digest, "kind": kind, "dimension": dimension}
