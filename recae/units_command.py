"""The command that names the units of a sparse autoencoder: units."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from recae.errors import InputError
from recae.files import require_table_place
from recae.options import (
    LOG,
    Device,
    ItemCol,
    Json,
    ModelDir,
    Overwrite,
    Quiet,
    SkipBadRows,
    TimeCol,
    UserCol,
    ValueCol,
)


def units(
    model_dir: ModelDir,
    events: Annotated[
        Path | None,
        typer.Argument(
            metavar="EVENTS",
            help="Whose units to count, and to name by the items that more of those have for whom a unit fires; "
            f"without it, the training's, named by output weights that are large for their items. {LOG}",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many items of each unit to name.")] = 10,
    n: Annotated[int, typer.Option("-n", help="How many units to print, those that fire most; --out has all.")] = 20,
    out: Annotated[
        Path | None, typer.Option("--out", help="A .parquet file to write; it appears whole or not at all.")
    ] = None,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    skip_bad_rows: SkipBadRows = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say for what share of the users each unit of a sparse autoencoder fires, and which items it stands for."""
    if n < 0:
        raise InputError(f"-n {n}: ask for at least 0 units to print")
    if out is not None:
        require_table_place(out, overwrite=overwrite)
    from recae import console, jobs
    from recae.artifact import load_model
    from recae.events import Columns
    from recae.units import name_units, require_units, write_units

    model = load_model(model_dir, device)
    require_units(model)
    read = None
    if events is not None:
        columns = Columns(user=user_col, item=item_col, value=value_col, time=time_col)
        read = jobs.read_histories(model, events, columns=columns, skip_bad_rows=skip_bad_rows)
    named = name_units(model, read, top=top)
    notes = jobs.notes_on(model, read.histories) if read else {}
    if out is not None:
        write_units(model, named, out, overwrite=overwrite)
    if as_json:
        totals = {"all_units": len(named), "dead_units": named.dead}
        console.print_json({"out": out and str(out), **totals, "units": list(islice(named, n)), "notes": notes})
    elif not quiet:
        console.print_units(list(islice(named, n)))
        console.say(f"{len(named):,} units, {named.dead:,} of which fire for nobody")
        if out is not None:
            console.say(f"{out}: {named.table.num_rows:,} rows")
        console.print_notes(notes)
