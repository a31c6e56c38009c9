"""The commands of what else a model is for: anomalies, generate."""

from pathlib import Path
from typing import Annotated

import typer

from recae.errors import InputError
from recae.options import (
    LARGEST_SEED,
    Device,
    Events,
    ItemCol,
    Json,
    ModelDir,
    OutTable,
    Overwrite,
    Quiet,
    SkipBadRows,
    TimeCol,
    UserCol,
    ValueCol,
)


def anomalies(
    model_dir: ModelDir,
    events: Events,
    out: OutTable,
    n: Annotated[int, typer.Option("-n", min=0, help="How many of the oddest users to print.")] = 10,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="EVENTS",
            help="A log of other users, such as the training's, who say what is usual.",
            show_default="the users themselves",
        ),
    ] = None,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    skip_bad_rows: SkipBadRows = False,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Draws which parts of a history are hidden.")
    ] = 42,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Rank a log's users by how badly the model explains each, for a history of that length, and say by which items."""
    from recae import console, jobs, uses
    from recae.artifact import load_model
    from recae.events import Columns
    from recae.tables import require_table_place

    require_table_place(out, overwrite=overwrite)
    model = load_model(model_dir, device)
    uses.require_explainer(model)
    columns = Columns(user=user_col, item=item_col, value=value_col, time=time_col)
    of_events, of_others = (
        jobs.columns_beside(log, columns, other) for log, other in ((events, reference), (reference, events))
    )
    histories = jobs.read_histories(model, events, columns=of_events, skip_bad_rows=skip_bad_rows)
    others = None
    if reference is not None:
        others = jobs.read_histories(model, reference, columns=of_others, skip_bad_rows=skip_bad_rows)
    with console.progress_bars(quiet) as listener:
        found = uses.find_anomalies(
            model, histories, out, reference=others, shown=n, seed=seed, overwrite=overwrite, listener=listener
        )
    written = found.written
    if as_json:
        result = {"out": str(written.path), "rows": written.rows, "notes": written.notes}
        console.print_json(result | {"oddest": found.oddest})
    elif not quiet:
        console.print_anomalies(found.oddest)
        console.say(f"{written.path}: {written.rows:,} rows")
        console.print_notes(written.notes)


def generate(
    model_dir: ModelDir,
    users: Annotated[int, typer.Option("--users", help="How many users to make up.")],
    out: OutTable,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Draws the users.")] = 42,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a log of users who never were, like those a variational model has learned from: user_id, item_id."""
    from recae import console, uses
    from recae.artifact import load_model
    from recae.tables import require_table_place

    if users < 1:
        raise InputError(f"--users {users}: ask for at least 1")
    require_table_place(out, overwrite=overwrite)
    model = load_model(model_dir, device)
    with console.progress_bars(quiet) as listener:
        written = uses.generate(model, users, out, seed=seed, overwrite=overwrite, listener=listener)
    if as_json:
        console.print_json({"out": str(written.path), "users": users, "rows": written.rows})
    elif not quiet:
        console.say(f"{written.path}: {written.rows:,} rows of {users:,} users")
