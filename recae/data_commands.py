"""The commands of `recae data`: the public data sets, what is in a log, and a log made ready."""

from pathlib import Path
from typing import Annotated

import typer

from recae.options import (
    RAW_LOG,
    Duplicates,
    Events,
    ItemCol,
    ItemTable,
    Json,
    MinItemsOfAll,
    MinValue,
    Out,
    Overwrite,
    Quiet,
    SkipBadRows,
    TimeCol,
    UserCol,
    ValueCol,
    data_section,
    names,
)
from recae.preparation import LEFT_OPEN

app = typer.Typer(no_args_is_help=True, help="Public data sets, and what is in a log.")


@app.command("list")
def data_list(as_json: Json = False) -> None:
    """List the public data sets that can be fetched."""
    from dataclasses import asdict

    from recae import console
    from recae.datasets import DATASETS

    if as_json:
        console.print_json([asdict(one) for one in DATASETS.values()])
        return
    for one in DATASETS.values():
        size = f"{one.events:,} events, {one.users:,} users, {one.items:,} items"
        console.say(f"{one.name:<16} {size}\n{'':<16} {one.address}\n{'':<16} {one.terms}")


@app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A name that `recae data list` shows.", show_default=False)],
    cache: Annotated[Path | None, typer.Option("--cache", help="Where downloads are kept.")] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Download a public data set, checked, into the cache; a broken download goes on where it stopped."""
    from recae import console
    from recae.datasets import fetch

    with console.progress_bars(quiet) as listener:
        path = fetch(name, cache, listener=listener)
    if as_json:
        console.print_json({"name": name, "path": str(path)})
    else:
        console.say(str(path))


@app.command("describe")
def data_describe(
    events: Events,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    min_value: MinValue = None,
    min_items: MinItemsOfAll = None,
    duplicates: Duplicates = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Say what is in a log: users, items, events, how dense, how long the histories."""
    from dataclasses import asdict

    from recae import console
    from recae.datasets import describe
    from recae.notes import notes
    from recae.reading import read_interactions

    columns = names(user_col, item_col, value_col, time_col)
    data = data_section(
        events,
        columns,
        otherwise=LEFT_OPEN,
        min_value=min_value,
        min_items=min_items,
        duplicates=duplicates,
        skip_bad_rows=skip_bad_rows,
    )
    interactions = read_interactions(data)
    description = describe(interactions)
    if as_json:
        console.print_json({**asdict(description), "counts": dict(interactions.counts)})
    else:
        console.print_description(description, interactions.counts.get("events", interactions.matrix.nnz))
        console.print_notes(notes(interactions.counts, data.model_dump()))


@app.command("prepare")
def data_prepare(
    events: Annotated[Path, typer.Argument(metavar="EVENTS", help=RAW_LOG)],
    out: Out,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    min_value: MinValue = None,
    min_items: MinItemsOfAll = None,
    duplicates: Duplicates = None,
    items: ItemTable = None,
    skip_bad_rows: SkipBadRows = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Turn a log, once, into a directory that every other command takes in its place and opens at once."""
    from recae import console
    from recae.notes import counted, notes
    from recae.reading import prepare_log

    columns = names(user_col, item_col, value_col, time_col)
    data = data_section(
        events,
        columns,
        items=items,
        otherwise=LEFT_OPEN,
        min_value=min_value,
        min_items=min_items,
        duplicates=duplicates,
        skip_bad_rows=skip_bad_rows,
    )
    prepared = prepare_log(data, out, overwrite=overwrite)
    users, known = prepared.matrix.shape
    if as_json:
        sizes = {"users": users, "items": known, "interactions": prepared.matrix.nnz}
        console.print_json({"out": str(out), **sizes, "counts": dict(prepared.counts)})
    elif not quiet:
        interactions = counted(prepared.matrix.nnz, "interactions")
        console.say(f"{out}: {counted(users, 'users')}, {counted(known, 'items')} and {interactions}")
        console.print_notes(notes(prepared.counts, data.model_dump()))
