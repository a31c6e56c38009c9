"""What else a model is for, beside recommending: to find the users it cannot explain, and to make up others."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import recae
from recae.anomalies import FEW, GROUP, lonely, oddest_of, rank_by_oddity, surprise_of
from recae.artifact import FittedModel
from recae.errors import CannotExplain, CannotGenerate, EventsError
from recae.files import whole_file
from recae.generation import Onlooker, make_up, nearest_of, some_of
from recae.interactions import Interactions
from recae.jobs import BELOW, Histories, Written, notes_on
from recae.models import MODELS
from recae.models.base import Explainer, Generator
from recae.notes import counted
from recae.progress import Listener, Step, silence
from recae.report.inputs import labels_of
from recae.report.made_up import MadeUpInput, RealUsers, render_made_up
from recae.report.page import encoded
from recae.tables import anomalies, events, write_in_pieces, write_table

SHOWN_ITEMS = 3
"""How many of a user's most surprising items are named."""


@dataclass(frozen=True, eq=False)
class FoundAnomalies:
    """The table that was written, and its first rows, of the oddest users."""

    written: Written
    oddest: list[dict[str, Any]]


def require_explainer(model: FittedModel) -> Explainer:
    """Return the model if it can say how likely a part of a history is, given the rest; CannotExplain if not."""
    able = ", ".join(name for name, one in MODELS.items() if hasattr(one, "log_likelihoods") and one.folds_in)
    if not isinstance(model.model, Explainer):
        raise CannotExplain(f"{model.card.model} has no likelihood to find anomalies by; these models have one: {able}")
    if not model.model.folds_in:
        raise CannotExplain(
            f"{model.card.model} knows only whole histories, and anomalies are found by hiding a part of one; "
            f"these models can: {able}"
        )
    return model.model


def find_anomalies(
    model: FittedModel,
    read: Histories,
    out: Path,
    *,
    reference: Histories | None = None,
    shown: int = 10,
    seed: int = 42,
    overwrite: bool = False,
    listener: Listener = silence,
) -> FoundAnomalies:
    """Write a table of all users that can be judged, the oddest first: see `recae.anomalies`.

    What is usual is learned from the users of `reference`, or from these users themselves. Users with fewer than two
    items that the model knows are counted, and EventsError if there are no others.
    """
    explainer, histories = require_explainer(model), read.histories
    surprise = surprise_of(explainer, histories.matrix, seed=seed, listener=listener)
    usual = surprise
    if reference is not None:
        usual = surprise_of(explainer, reference.histories.matrix, seed=seed, listener=listener, task="explain others")
    for scored, whose in ((surprise.scored, "user"), (usual.scored, "user to compare with")):
        if not scored.any():
            raise EventsError(f"no {whose} has two items that the model knows, and one item cannot explain another")
    found = rank_by_oddity(surprise, usual)
    odd_items = [histories.matrix.indices[places] for places in oddest_of(surprise, found.rows, SHOWN_ITEMS)]
    table = anomalies(found, odd_items, histories.users, model.items, model.item_table)
    about = {"model": model.card.model, "digest": model.digest, "seed": seed}
    write_table(out, table, about=about, overwrite=overwrite)
    compared = int(usual.scored.sum())
    told = {
        "users with fewer than two items the model knows: not judged": int((~surprise.scored).sum()),
        f"{BELOW}: not judged": read.below,
        f"users to compare with, fewer than the {2 * GROUP} it takes to tell what is usual at which length": (
            compared if compared < 2 * GROUP else 0
        ),
        f"users with fewer than {FEW} others of about their length to compare with: their z says little": (
            lonely(surprise, usual) if compared >= 2 * GROUP else 0
        ),
    }
    notes = notes_on(model, histories) | {note: count for note, count in told.items() if count}
    return FoundAnomalies(Written(out, table.num_rows, notes), table.slice(0, shown).to_pylist())


def require_generator(model: FittedModel) -> Generator:
    """Return the model if it can make up users; CannotGenerate if not."""
    if isinstance(model.model, Generator):
        return model.model
    able = ", ".join(name for name, one in MODELS.items() if hasattr(one, "sample"))
    raise CannotGenerate(
        f"{model.card.model} has no distribution of codes to draw users from; these models have one: {able}"
    )


def generate(
    model: FittedModel,
    users: int,
    out: Path,
    *,
    report: Path | None = None,
    reference: Histories | None = None,
    source: str = "the log",
    seed: int = 42,
    overwrite: bool = False,
    listener: Listener = silence,
) -> Written:
    """Write a log of so many users who never were, synthetic-1, synthetic-2, …: user_id, item_id, and counts if any.

    The same seed gives the same log, and a longer one begins with a shorter one's users; no more than a block of users
    is ever in memory. A `report` says how they are like the real users of `reference`, which is called `source`, or
    like those of whom the model's directory tells; the log and it appear both or not at all. Real users with fewer
    items than anybody whom the model has learned from are left out of it and counted; EventsError if there are no
    others.
    """
    generator = require_generator(model)
    has_counts = getattr(generator, "likelihood", None) == "poisson"
    about = {"model": model.card.model, "digest": model.digest, "users": users, "seed": seed}
    real: Interactions | None = None
    left_out: dict[str, int] = {}
    if reference is not None:
        real, left_out = _learnable(model, reference.histories, source)
    onlooker = None if report is None else Onlooker(len(model.items), None if real is None else real.matrix)

    def pieces(page: Path | None) -> Iterator[pa.Table]:
        done = 0
        for block in make_up(generator, users, seed):
            names = [f"synthetic-{done + number + 1}" for number in range(block.shape[0])]
            if onlooker is not None:
                onlooker.see(block)
            yield events(block, names, model.items, values=has_counts)
            done += block.shape[0]
            listener(Step("generate", done, users))
        if page is not None and onlooker is not None:
            # Before the log is where it belongs: a page that cannot be written leaves none.
            page.write_bytes(encoded(render_made_up(_made_up_input(model, onlooker, real, left_out, source, seed))))

    with ExitStack() as opened:
        page = None if report is None else opened.enter_context(whole_file(report, overwrite=overwrite))
        rows = write_in_pieces(out, pieces(page), about=about, overwrite=overwrite)
    notes = {} if reference is None else notes_on(model, reference.histories)
    return Written(out, rows, notes | {f"real {who}: left out of the report": count for who, count in left_out.items()})


def _learnable(model: FittedModel, histories: Interactions, source: str) -> tuple[Interactions, dict[str, int]]:
    """Return those users who have as many items as everybody whom the model has learned from; note who is left out.

    A directory of an older recae does not tell how many these are: all users are returned then.
    """
    fewest = max(1, model.card.training.get("fewest_items", 1))
    lengths = np.diff(histories.matrix.indptr)
    long = lengths >= fewest
    if not long.any():
        raise EventsError(f"{source}: no user has {fewest} items, as everybody has whom the model has learned from")
    short = int((~long & (lengths > 0)).sum())
    note = f"users with fewer than {fewest} items, from whom the model has learned nothing"
    return histories.rows(long), {note: short} if short else {}


def _made_up_input(
    model: FittedModel,
    onlooker: Onlooker,
    known: Interactions | None,
    left_out: Mapping[str, int],
    source: str,
    seed: int,
) -> MadeUpInput:
    """Return what the page shows: with real users if a log of theirs is known, and what the card tells if not."""
    data, first = model.card.data, onlooker.first
    facts = {
        "recae": recae.__version__,
        "model": f"{model.card.model}, {model.digest[:16]}",
        "trained on": f"{data.users:,} users, {data.items:,} items, {data.interactions:,} events, {data.digest[:16]}",
        "seed": str(seed),
    }
    real = None
    popularity, users, told = model.item_table["count"].to_numpy(), data.users, data.interactions
    if known is not None:
        matrix = known.matrix
        popularity, users, told = matrix.getnnz(axis=0), matrix.shape[0], matrix.nnz
        facts["real users"] = f"{users:,} of {source}, {told:,} events"
        some = some_of(users)
        among = nearest_of(matrix[some], matrix, but=some)
        told_of = "".join(counted(count, note) for note, count in left_out.items())
        real = RealUsers(source, known.users, matrix, nearest_of(first, matrix), among, onlooker.copies, told_of)
    return MadeUpInput(
        model=model.card.model,
        facts=facts,
        popularity=onlooker.popularity,
        lengths=onlooker.lengths,
        first=first,
        real_popularity=popularity,
        real_users=users,
        real_events=told,
        real=real,
        labels=labels_of(model.items, model.item_table),
    )
