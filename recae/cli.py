"""The commands: parse, call the library, print. Nothing here knows how anything is done.

Exit codes: 0 done; 2 the user's input or usage is wrong (one line on stderr); 1 anything else.
torch, mlflow and pandas are imported inside the commands that need them: `recae --help` answers at once.
"""

import errno
import io
import re
import sys
import warnings
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from recae import __version__, data_commands, model_commands, tune_command, units_command, uses_commands
from recae.advice import resumable
from recae.errors import InputError, RecaeError
from recae.files import refuse_existing
from recae.options import (
    Device,
    DuplicatesOfRecipe,
    ItemCol,
    ItemTable,
    Json,
    MinItemsOfRecipe,
    MinValue,
    Overwrite,
    Quiet,
    Recipe,
    RecipeData,
    RecipeOut,
    RecipeSeed,
    RecipeSet,
    Resume,
    SkipBadRows,
    TimeCol,
    UserCol,
    ValueCol,
    ValuesOfRecipe,
    names,
    read_plan,
    show_warning,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Autoencoder recommenders: from an interaction log to compared, tracked rankings and embeddings.",
)
app.add_typer(data_commands.app, name="data")

STOPPED = 130
"""What typer returns for a command that was stopped by Ctrl-C."""


def _print_version(asked: bool) -> None:
    if asked:
        print(f"recae {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print recae's version.")
    ] = False,
) -> None:
    """Take what comes before a command."""


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
    except (MemoryError, RuntimeError) as error:
        from recae.device import is_out_of_memory

        if not is_out_of_memory(error):
            raise
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
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="LABEL", help="Compare this model of the recipe's alone; repeatable."),
    ] = None,
    data: RecipeData = None,
    items: ItemTable = None,
    out: RecipeOut = None,
    settings: RecipeSet = None,
    user_col: UserCol = None,
    item_col: ItemCol = None,
    value_col: ValueCol = None,
    time_col: TimeCol = None,
    min_value: MinValue = None,
    min_items: MinItemsOfRecipe = None,
    values: ValuesOfRecipe = None,
    duplicates: DuplicatesOfRecipe = None,
    skip_bad_rows: SkipBadRows = False,
    seed: RecipeSeed = None,
    device: Device = "auto",
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Split once, fit every model of a recipe, evaluate, track, and say what is better than what."""
    if resume and out is None:
        raise InputError("--resume: say with --out which run is to go on, such as --out runs/films/20260131-093000")
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    plan = read_plan(
        recipe,
        settings,
        data=data,
        items=items,
        columns=names(user_col, item_col, value_col, time_col),
        seed=seed,
        skip_bad_rows=skip_bad_rows,
        min_value=min_value,
        min_items=min_items,
        values=values,
        duplicates=duplicates,
    ).only(models or [])
    from recae import console, experiment
    from recae.progress import Listener
    from recae.tracking import Tracker

    out = out or Path("runs") / plan.name / f"{datetime.now():%Y%m%d-%H%M%S}"
    speak = not (quiet or as_json)
    trackers: list[Tracker] = []
    listeners: list[Listener] = []
    shown = ExitStack()

    def open_tracker(name: str) -> Tracker:
        """Begin to speak, too: recipe, log and output are in order, and the first model is about to be fitted."""
        if speak:
            console.say(plan.resolved())
        # Not before: bars would take what is said on stdout for theirs.
        listeners.append(shown.enter_context(console.progress_bars(quiet)))
        trackers.append(Tracker(name))
        if trackers[0].lost:
            console.warn(trackers[0].lost)
        return trackers[0]

    with resumable(out, experiment.workspace_of(out), begun=lambda: bool(trackers)), shown:
        outcome = experiment.run(
            plan,
            out,
            open_tracker=open_tracker,
            device=device,
            resume=resume,
            overwrite=overwrite,
            listener=lambda step: listeners[0](step),
        )
    if as_json:
        console.print_json(
            {"out": str(outcome.out), "metrics": outcome.metrics.to_dict("records"), "notes": outcome.caveats}
        )
    elif speak:
        console.print_outcome(outcome)
        console.say(f"results in {outcome.out}; the report is {outcome.out / 'report.html'}")
    console.print_tracked(outcome.tracker, speak)


for command in (
    model_commands.train,
    model_commands.recommend,
    model_commands.embed,
    model_commands.evaluate,
    model_commands.models,
    tune_command.tune,
    units_command.units,
    uses_commands.anomalies,
    uses_commands.generate,
):
    app.command()(command)


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


def _usage(error: typer.TyperException) -> str:
    """Return what is wrong with a command line, and where its usage stands; empty where that was printed already."""
    said = error.format_message().rstrip(".")
    for old, new in {": Value error, ": ": ", ": Input ": ": input ", ". Did you ": "; did you "}.items():
        said = said.replace(old, new)
    said = re.sub(r" \(Possible options: (.*)\)$", r"; did you mean \1?", said)
    context = getattr(error, "ctx", None)
    return said and f"{said[0].lower()}{said[1:]}; see {context.command_path if context else 'recae'} --help"


def _fail(message: str, code: int) -> None:
    if message:
        print("recae:", " ".join(message.splitlines()), file=sys.stderr)
    sys.exit(code)
