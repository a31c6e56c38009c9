"""The commands: parse, call the library, print. Nothing here knows how anything is done.

Exit codes: 0 done; 2 the user's input or usage is wrong (one line on stderr); 1 anything else.
torch, mlflow and pandas are imported inside the commands that need them: `recae --help` answers at once.
"""

import errno
import io
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recae import data_commands
from recae.errors import InputError, Interrupted, OutputError, RecaeError
from recae.options import (
    DEFAULT_METRICS,
    LARGEST_SEED,
    LOG,
    Device,
    Duplicates,
    EmbeddingKind,
    Events,
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
    Recipe,
    Resume,
    SkipBadRows,
    TimeCol,
    UserCol,
    ValueCol,
    data_section,
    names,
    show_warning,
)

if TYPE_CHECKING:
    from recae.jobs import Written

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Autoencoder recommenders: from an interaction log to compared, tracked rankings and embeddings.",
)
app.add_typer(data_commands.app, name="data")

STOPPED = 130
"""What typer returns for a command that was stopped by Ctrl-C."""


def main() -> None:
    """Run the command line; an error of the user's becomes one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± gets a question mark, not a traceback
    warnings.showwarning = show_warning
    try:
        code = app(prog_name="recae", standalone_mode=False)
    except typer.TyperException as error:
        _fail(_usage(error), error.exit_code)
    except InputError as error:
        _fail(str(error), 2)
    except RecaeError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", 1)
    except MemoryError:
        _fail("out of memory; use narrower layers, fewer events, or a machine with more", 1)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _fail(f"{str(error.filename)[:60]}…: this name is too long for a file; choose a shorter one", 2)
        if error.errno == errno.ENOSPC:
            _fail("no space left where the output goes", 1)
        raise
    if code == STOPPED:
        _fail("stopped", 1)
    sys.exit(code)


@app.command()
def compare(
    recipe: Recipe,
    data: Annotated[Path | None, typer.Option("--data", help="Your own log instead of the recipe's.")] = None,
    items: ItemTable = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The results' directory; by default a new one in runs/.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key, as models.ease.l2=300; repeatable."),
    ] = None,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    min_value: MinValue = None,
    min_items: Annotated[int | None, typer.Option("--min-items", min=1, help="Drop users with fewer items.")] = None,
    skip_bad_rows: SkipBadRows = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="The models' seed; the split has its own, --set split.seed=…")
    ] = None,
    device: Device = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Split once, fit every model of a recipe, evaluate, track, and say what is better than what."""
    from recae import console, experiment
    from recae.recipe import read_recipe, read_settings
    from recae.tracking import Tracker

    if resume and out is None:
        raise InputError("--resume: say with --out which run is to go on, such as --out runs/films/20260131-093000")
    columns = names(user_col, item_col, value_col, time_col)
    overrides: dict[str, Any] = {f"data.columns.{name}": column for name, column in columns.items() if column}
    if data is not None:
        # Another log is another experiment: reports and runs do not go by the name of the recipe's own.
        overrides |= {"data.path": str(data), "data.items": None, "name": _name_of(data)}
    if items is not None:
        overrides["data.items"] = str(items)
    rules = {"min_value": min_value, "min_items": min_items, "skip_bad_rows": skip_bad_rows or None}
    overrides |= {f"data.{name}": rule for name, rule in rules.items() if rule is not None}
    if seed is not None:
        overrides["seed"] = seed
    plan = read_recipe(recipe, overrides | read_settings(settings or []))
    out = out or Path("runs") / plan.name / f"{datetime.now():%Y%m%d-%H%M%S}"
    speak = not (quiet or as_json)
    if speak:
        console.say(plan.resolved())

    def open_tracker(name: str) -> Tracker:
        tracker = Tracker(name)
        if tracker.lost:
            console.warn(tracker.lost)
        return tracker

    with _resumable(out, experiment.workspace_of(out)), console.progress_bars(quiet) as listener:
        outcome = experiment.run(
            plan, out, open_tracker=open_tracker, device=device, resume=resume, overwrite=overwrite, listener=listener
        )
    tracker = outcome.tracker
    if as_json:
        console.print_json(
            {"out": str(outcome.out), "metrics": outcome.metrics.to_dict("records"), "notes": outcome.caveats}
        )
    elif speak:
        console.print_outcome(outcome)
        console.say(f"results in {outcome.out}; the report is {outcome.out / 'report.html'}")
    if tracker.lost:
        console.warn(tracker.lost)
    elif speak:
        console.say(f"tracked in {tracker.uri}")


@app.command()
def train(
    model: ModelName,
    events: Events,
    out: Out,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a hyper-parameter, as latent=64; repeatable."),
    ] = None,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    min_value: MinValue = None,
    min_items: MinItems = 5,
    duplicates: Duplicates = "last",
    items: ItemTable = None,
    validation_share: Annotated[
        float, typer.Option("--validation-share", min=0, max=0.5, help="Users kept from training, to stop early by.")
    ] = 0.0,
    skip_bad_rows: SkipBadRows = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="The model's seed.")] = 42,
    device: Device = "auto",
    profile: Profile = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit one model on all the events, and leave a model directory."""
    from recae import console, jobs, profiling
    from recae.models import build
    from recae.recipe import read_settings

    built = build(model, **read_settings(settings or []))
    columns = names(user_col, item_col, value_col, time_col)
    data = data_section(
        events,
        columns,
        items=items,
        min_value=min_value,
        min_items=min_items,
        duplicates=duplicates,
        skip_bad_rows=skip_bad_rows,
    )
    trace = jobs.trace_of(out)
    profiled = profiling.take(trace, overwrite=overwrite) if profile else nullcontext()
    with _resumable(out, jobs.checkpoint_of(out)), console.progress_bars(quiet) as listener, profiled as taken:
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
        console.print_notes(notes)
        if taken:
            console.print_profile(taken)
            console.say(f"the trace is {trace}; https://ui.perfetto.dev shows it")


@app.command()
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
    metrics: Metrics = DEFAULT_METRICS,
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

    wanted = [Metric.parse(metric) for metric in metrics.split(",")]
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


@app.command()
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
    from recae import console, jobs
    from recae.artifact import load_model
    from recae.events import Columns
    from recae.tables import require_table_place

    if n < 1:
        raise InputError(f"-n {n}: ask for at least 1 item for each user")
    require_table_place(out, overwrite=overwrite)
    model = load_model(model_dir, device)
    columns = Columns(user=user_col, item=item_col, value=value_col, time=time_col)
    histories = jobs.read_histories(model, events, columns=columns, skip_bad_rows=skip_bad_rows)
    with console.progress_bars(quiet) as listener:
        written = jobs.recommend(model, histories, n, out, keep_seen=keep_seen, overwrite=overwrite, listener=listener)
    _print_written(written, quiet, as_json)


@app.command()
def embed(
    model_dir: ModelDir,
    out: OutTable,
    events: Annotated[Path | None, typer.Argument(metavar="EVENTS", help=LOG)] = None,
    kind: Annotated[
        EmbeddingKind,
        typer.Option("--kind", help="latent: the bottleneck. retrieval: its product with items is the score."),
    ] = "latent",
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
    from recae import console, jobs
    from recae.artifact import load_model
    from recae.events import Columns
    from recae.tables import require_table_place

    require_table_place(out, overwrite=overwrite)
    if items == (events is not None):
        raise InputError("embed takes either EVENTS, whose users it embeds, or --items for the items' vectors")
    model = load_model(model_dir, device)
    jobs.require_embedder(model)
    if events is None:
        written = jobs.embed_items(model, out, overwrite=overwrite)
    else:
        columns = Columns(user=user_col, item=item_col, value=value_col, time=time_col)
        histories = jobs.read_histories(model, events, columns=columns, skip_bad_rows=skip_bad_rows)
        with console.progress_bars(quiet) as listener:
            written = jobs.embed(model, histories, kind, out, overwrite=overwrite, listener=listener)
    _print_written(written, quiet, as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can do, and what is amiss."""
    from recae import console
    from recae.doctor import examine

    facts = examine()
    if as_json:
        console.print_json(facts)
    else:
        console.print_facts(facts)


@contextmanager
def _resumable(out: Path, kept: Path) -> Iterator[None]:
    """Tell whoever stops a command how to go on with it: from what is kept beside its output, or else anew."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(f"{str(error) or 'stopped'}; {_how_to_go_on(out, kept)}") from None
    except OutputError as error:
        if "no space left" in str(error) and kept.exists():
            raise OutputError(f"{error}; {_how_to_go_on(out, kept)}") from None
        raise


def _how_to_go_on(out: Path, kept: Path) -> str:
    words = [word for word in sys.argv[1:] if word != "--resume"]
    if not any(word.split("=")[0] == "--out" for word in words):
        words += ["--out", str(out)]
    words += ["--resume"] if kept.exists() else []
    how = "to go on" if kept.exists() else "to start again"
    return f"{how}: recae {shlex.join(words)}"


def _name_of(log: Path) -> str:
    """Return a log's file name as the name of an experiment: letters, digits, dots, dashes."""
    return re.sub(r"[^\w.-]+", "-", log.name.split(".")[0]).strip("-.") or "log"


def _print_written(written: "Written", quiet: bool, as_json: bool) -> None:
    from recae import console

    if as_json:
        console.print_json({"out": str(written.path), "rows": written.rows, "notes": written.notes})
    elif not quiet:
        console.say(f"{written.path}: {written.rows:,} rows")
        console.print_notes(written.notes)


def _usage(error: typer.TyperException) -> str:
    """Return what is wrong with a command line, and where its usage stands; empty where that was printed already."""
    said = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return said and f"{said[0].lower()}{said[1:]}; see {context.command_path if context else 'recae'} --help"


def _fail(message: str, code: int) -> None:
    if message:
        print("recae:", " ".join(message.splitlines()), file=sys.stderr)
    sys.exit(code)
