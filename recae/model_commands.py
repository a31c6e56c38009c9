"""The commands of one model: train, recommend, embed, evaluate; and what models there are."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recae.advice import resumable
from recae.errors import InputError
from recae.files import refuse_existing, require_table_place
from recae.options import (
    LARGEST_SEED,
    LOG,
    METRICS_PER_USER,
    Device,
    Duplicates,
    EmbeddingKind,
    Events,
    EventsAfter,
    ItemCol,
    ItemTable,
    Json,
    Metrics,
    MinItems,
    MinValue,
    ModelDir,
    ModelName,
    Out,
    OutTable,
    Overwrite,
    Profile,
    Quiet,
    Resume,
    SkipBadRows,
    TimeCol,
    UserCol,
    ValueCol,
    Values,
    data_section,
    model_and_log,
    names,
)

if TYPE_CHECKING:
    from recae.jobs import Written


def train(
    out: Out,
    model: ModelName = "",
    events: EventsAfter = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a hyper-parameter that `recae models MODEL` shows, as latent=64; repeatable.",
        ),
    ] = None,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    min_value: MinValue = None,
    min_items: MinItems = None,
    values: Values = None,
    duplicates: Duplicates = None,
    items: ItemTable = None,
    validation_share: Annotated[
        float | None,
        typer.Option(
            "--validation-share",
            min=0,
            max=0.5,
            help="Users kept from training, to stop early by, or to weigh the hybrid's parts by; items that only they "
            "have stay unknown.",
            show_default="0; of the hybrid, 0.1",
        ),
    ] = None,
    skip_bad_rows: SkipBadRows = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="The model's seed.")] = 42,
    device: Device = "auto",
    profile: Profile = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit one model, by default the hybrid, on a log but for the --validation-share, and leave a model directory."""
    model, log = model_and_log(model, events)
    refuse_existing(out, overwrite=overwrite)
    columns = names(user_col, item_col, value_col, time_col)
    data = data_section(
        log,
        columns,
        items=items,
        min_value=min_value,
        min_items=min_items,
        values=values,
        duplicates=duplicates,
        skip_bad_rows=skip_bad_rows,
    )
    from recae import console, jobs, profiling
    from recae.models import build
    from recae.recipe import read_settings

    built = build(model, **read_settings(settings or []))
    trace = jobs.trace_of(out)
    profiled = profiling.take(trace, overwrite=overwrite) if profile else nullcontext()
    with resumable(out, jobs.checkpoint_of(out)), console.progress_bars(quiet) as listener, profiled as taken:
        card, notes = jobs.train(
            built,
            data,
            out,
            validation_share=validation_share,
            seed=seed,
            device=device,
            resume=resume,
            overwrite=overwrite,
            listener=taken.listen(listener) if taken else listener,
        )
    if as_json:
        result = {"out": str(out), **card.model_dump(mode="json"), "notes": notes}
        console.print_json(result | ({"profile": {"trace": str(trace), **taken.tables()}} if taken else {}))
    elif not quiet:
        console.say(
            f"{out}: {built!r}, trained on {card.data.users:,} users, {card.data.items:,} items and "
            f"{card.data.interactions:,} interactions in {card.training['seconds']:.1f} s"
        )
        if watched := card.training.get("watched"):
            best, epochs = (card.training[key] for key in ("best_epoch", "epochs"))
            reached = card.training["curve"][best - 1][watched]
            console.say(f"best in epoch {best} of {epochs}: {watched} {reached:.4f} on the users kept from training")
        if chosen := card.training.get("chosen"):
            console.print_chosen(chosen)
        console.print_notes(notes)
        if taken:
            console.print_profile(taken)
            console.say(f"the trace is {trace}; https://ui.perfetto.dev shows it")


def recommend(
    model_dir: ModelDir,
    events: Events,
    out: OutTable,
    n: Annotated[int, typer.Option("-n", help="How many items for each user.")] = 100,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Recommend what a user has already, too.")] = False,
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
    """Write the best items of every user in a log: user_id, item_id, rank, score."""
    if n < 1:
        raise InputError(f"-n {n}: ask for at least 1 item for each user")
    require_table_place(out, overwrite=overwrite)
    from recae import console, jobs
    from recae.artifact import load_model
    from recae.events import Columns

    model = load_model(model_dir, device)
    columns = Columns(user=user_col, item=item_col, value=value_col, time=time_col)
    histories = jobs.read_histories(model, events, columns=columns, skip_bad_rows=skip_bad_rows)
    with console.progress_bars(quiet) as listener:
        written = jobs.recommend(model, histories, n, out, keep_seen=keep_seen, overwrite=overwrite, listener=listener)
    _print_written(written, quiet, as_json)


def embed(
    model_dir: ModelDir,
    out: OutTable,
    events: Annotated[Path | None, typer.Argument(metavar="EVENTS", help=LOG)] = None,
    kind: Annotated[
        EmbeddingKind | None,
        typer.Option(
            "--kind",
            help="latent: the bottleneck. retrieval: its product with items is the score.",
            show_default="latent; of items, retrieval",
        ),
    ] = None,
    items: Annotated[bool, typer.Option("--items", help="Write the items' retrieval vectors instead.")] = False,
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
    """Write a vector for every user in a log, or for every item of the model."""
    require_table_place(out, overwrite=overwrite)
    if items == (events is not None):
        raise InputError("embed takes either EVENTS, whose users it embeds, or --items for the items' vectors")
    from recae import console, jobs
    from recae.artifact import load_model
    from recae.events import Columns

    model = load_model(model_dir, device)
    jobs.require_embedder(model)
    if events is None:
        written = jobs.embed_items(model, out, kind=kind or "retrieval", overwrite=overwrite)
    else:
        columns = Columns(user=user_col, item=item_col, value=value_col, time=time_col)
        histories = jobs.read_histories(model, events, columns=columns, skip_bad_rows=skip_bad_rows)
        with console.progress_bars(quiet) as listener:
            written = jobs.embed(model, histories, kind or "latent", out, overwrite=overwrite, listener=listener)
    _print_written(written, quiet, as_json)


def evaluate(
    model_dir: Annotated[Path | None, typer.Argument(metavar="MODEL_DIR", help="A model directory.")] = None,
    events: Annotated[Path | None, typer.Argument(metavar="EVENTS", help="A log of histories.")] = None,
    held_out: Annotated[
        Path | None, typer.Option("--held-out", help="The log of what to find; without it, a fifth of each history.")
    ] = None,
    recommendations: Annotated[
        Path | None,
        typer.Option(
            "--recommendations",
            help="Evaluate this table instead: user, item, and rank or score.",
        ),
    ] = None,
    metrics: Metrics = None,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    skip_bad_rows: SkipBadRows = False,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Draws the fifth that is held out.")
    ] = 98765,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say what recall@k and the rest are: of a model on users' histories, or of anybody's recommendation file."""
    from recae import console, jobs
    from recae.artifact import load_model
    from recae.evaluation import summarise
    from recae.events import Columns
    from recae.metrics import Metric

    wanted = [Metric.parse(metric) for metric in (metrics or METRICS_PER_USER).split(",")]
    columns = Columns(user=user_col, item=item_col, value=value_col, time=time_col)
    if recommendations is not None:
        if held_out is None or model_dir is not None:
            raise InputError("evaluate --recommendations FILE goes with --held-out FILE, and without a model directory")
        evaluation, notes = jobs.evaluate_recommendations(
            recommendations, held_out, wanted, columns=columns, skip_bad_rows=skip_bad_rows
        )
    else:
        if model_dir is None or events is None:
            raise InputError("evaluate needs MODEL_DIR and EVENTS, or --recommendations FILE and --held-out FILE")
        model = load_model(model_dir, device)
        if metrics is None and jobs.learned_values(model):
            wanted.insert(0, Metric("rmse"))
        with console.progress_bars(quiet) as listener:
            evaluation, notes = jobs.evaluate_model(
                model,
                events,
                wanted,
                held_out=held_out,
                columns=columns,
                skip_bad_rows=skip_bad_rows,
                seed=seed,
                listener=listener,
            )
    summary = summarise(evaluation)
    if as_json:
        console.print_json({"metrics": summary.to_dict("records"), "notes": notes})
    elif not quiet:
        console.print_summary(summary)
        console.print_notes(notes)


def models(
    name: Annotated[str | None, typer.Argument(metavar="MODEL", help="Show this one's hyper-parameters.")] = None,
    as_json: Json = False,
) -> None:
    """Say what models there are, or what one is and which hyper-parameters it has, with their defaults."""
    from dataclasses import asdict

    from recae import console
    from recae.manual import all_pages, page

    if as_json:
        console.print_json([asdict(one) for one in all_pages()] if name is None else asdict(page(name)))
    elif name is None:
        console.print_models(all_pages())
    else:
        console.print_model(page(name))


def _print_written(written: "Written", quiet: bool, as_json: bool) -> None:
    from recae import console

    if as_json:
        console.print_json({"out": str(written.path), "rows": written.rows, "notes": written.notes})
    elif not quiet:
        console.say(f"{written.path}: {written.rows:,} rows")
        console.print_notes(written.notes)
