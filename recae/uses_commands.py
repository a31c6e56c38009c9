"""The commands of what else a model is for: anomalies, generate."""

from pathlib import Path
from typing import Annotated

import typer

from recae.errors import InputError
from recae.files import require_table_place
from recae.options import (
    LARGEST_SEED,
    Device,
    Events,
    ExplainerDir,
    GeneratorDir,
    ItemCol,
    Json,
    OutTable,
    Overwrite,
    Quiet,
    SkipBadRows,
    TimeCol,
    UserCol,
    ValueCol,
)

MOST_USERS = 10**8
"""As many as recae has been measured to read events of, and a file of gigabytes."""


def anomalies(
    model_dir: ExplainerDir,
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
    require_table_place(out, overwrite=overwrite)
    from recae import console, jobs, uses
    from recae.artifact import load_model
    from recae.events import Columns

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
    model_dir: GeneratorDir,
    users: Annotated[int, typer.Option("--users", help="How many users to make up.")],
    out: OutTable,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="An .html file to write, too: how they are like real users, and whose copy, if anybody's. "
            "With --reference, it shows ids and items of real users.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="EVENTS",
            help="A log of real users, such as the training's, whom the report compares them with.",
            show_default="what the model's directory tells",
        ),
    ] = None,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    skip_bad_rows: SkipBadRows = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Draws the users.")] = 42,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a log of users who never were, like those a variational model has learned from: user_id, item_id."""
    if users < 1:
        raise InputError(f"--users {users}: ask for at least 1")
    if users > MOST_USERS:
        raise InputError(f"--users {users}: ask for at most {MOST_USERS:,}")
    if reference is not None and report is None:
        raise InputError("--reference: only a report compares with real users; name it, such as --report users.html")
    require_table_place(out, overwrite=overwrite)
    from recae import console, jobs, uses
    from recae.artifact import load_model
    from recae.events import Columns
    from recae.report.page import require_page_place

    if report is not None:
        require_page_place(report, overwrite=overwrite)
    model = load_model(model_dir, device)
    uses.require_generator(model)
    others = None
    if reference is not None:
        columns = Columns(user=user_col, item=item_col, value=value_col, time=time_col)
        others = jobs.read_histories(model, reference, columns=columns, skip_bad_rows=skip_bad_rows)
    with console.progress_bars(quiet) as listener:
        written = uses.generate(
            model,
            users,
            out,
            report=report,
            reference=others,
            source=reference.name if reference is not None else "",
            seed=seed,
            overwrite=overwrite,
            listener=listener,
        )
    if as_json:
        result = {"out": str(written.path), "users": users, "rows": written.rows}
        console.print_json(result | {"report": report and str(report), "notes": written.notes})
    elif not quiet:
        console.say(f"{written.path}: {written.rows:,} rows of {users:,} users")
        if report is not None:
            console.say(f"the report is {report}")
        console.print_notes(written.notes)
