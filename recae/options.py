"""The options that commands share, spelled once, and what is made of them."""

import re
import sys
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from recae.errors import InputError, MemoryRanShort, ModelError, NotRecorded, nearest
from recae.preparation import DEFAULT, LEFT_OPEN, MIN_ITEMS
from recae.preparation import Duplicates as Rule
from recae.preparation import Values as Kept

if TYPE_CHECKING:
    from recae.reading import DataSection
    from recae.recipe import Recipe as Plan

RAW_LOG = "A log: CSV, TSV, Parquet, Arrow, or a known zip."
LOG = "A log: CSV, TSV, Parquet, Arrow, a known zip; or what recae data prepare made of one, whose rules then hold."
LARGEST_SEED = 2**32 - 1
MODEL_NAMES = (
    "random",
    "popularity",
    "item-mean",
    "item-knn",
    "als",
    "rating-als",
    "bpr",
    "ease",
    "edlae",
    "rdlae",
    "elsa",
    "spectral",
    "infinite-ae",
    "kernel-ae",
    "autoencoder",
    "sparse-ae",
    "mult-dae",
    "cdae",
    "mult-vae",
    "rec-vae",
    "vamp-vae",
    "hybrid",
)
"""The keys of `recae.models.MODELS`, spelled again because asking there loads torch; a test compares them."""

EXPLAINERS = ("autoencoder", "sparse-ae", "mult-dae", "mult-vae", "rec-vae", "vamp-vae", "hybrid")
GENERATORS = ("mult-vae", "rec-vae", "vamp-vae", "hybrid")
"""The models that `anomalies` and `generate` work with: see `recae.uses`; spelled again, and compared, as those are."""

_show_otherwise = warnings.showwarning


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
    *,
    quiet: bool = False,
) -> None:
    """Print a warning that is meant for the user as one line, if at all, and leave the others as they are."""
    if issubclass(category, MemoryRanShort | NotRecorded):
        if not quiet:
            print(f"note: {message}", file=sys.stderr)
    else:
        _show_otherwise(message, category, filename, lineno, file, line)


def without_notes(quiet: bool) -> bool:
    """Let warnings that are meant for the user go unsaid, too."""
    if quiet:
        warnings.showwarning = partial(show_warning, quiet=True)
    return quiet


def min_items(otherwise: str) -> Any:
    """Return the option of how many items a user has at least, and what holds otherwise."""
    return typer.Option("--min-items", min=1, help="Drop users with fewer items.", show_default=otherwise)


def duplicates(otherwise: str) -> Any:
    """Return the option of what becomes of repeated events, and what holds otherwise."""
    said = "What several events of one user with one item become."
    return typer.Option("--duplicates", help=said, show_default=otherwise)


def values(otherwise: str) -> Any:
    """Return the option of what values events have, and what holds otherwise."""
    return typer.Option("--values", help="keep: those of the log, such as ratings.", show_default=otherwise)


Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="Such as pipelines/movielens-small.yaml.")]
RecipeData = Annotated[Path | None, typer.Option("--data", help="Your own log instead of the recipe's.")]
RecipeOut = Annotated[Path | None, typer.Option("--out", help="The results' directory; by default a new one in runs/.")]
RecipeSet = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key, as models.ease.l2=300; repeatable."),
]
RecipeSeed = Annotated[
    int | None, typer.Option("--seed", help="The models' seed; the split has its own, --set split.seed=…")
]
ModelName = Annotated[
    str,
    typer.Argument(
        metavar="[MODEL]",
        help=f"default (the hybrid), or one of {', '.join(MODEL_NAMES)}: see `recae models`.",
        show_default="default",
    ),
]
ModelDir = Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="What train or compare wrote for a model.")]
ExplainerDir = Annotated[Path, typer.Argument(metavar="MODEL_DIR", help=f"Of a model among {', '.join(EXPLAINERS)}.")]
GeneratorDir = Annotated[Path, typer.Argument(metavar="MODEL_DIR", help=f"Of a model among {', '.join(GENERATORS)}.")]
Events = Annotated[Path, typer.Argument(metavar="EVENTS", help=LOG)]
EventsAfter = Annotated[Path | None, typer.Argument(metavar="EVENTS", help=LOG, show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="The directory to write; it appears whole or not at all.")]
OutTable = Annotated[Path, typer.Option("--out", help="The .parquet file to write; it appears whole or not at all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run at --out.")]
Profile = Annotated[bool, typer.Option("--profile", help="Say where the time went, and leave a trace beside --out.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Quiet = Annotated[bool, typer.Option("--quiet", callback=without_notes, help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ItemTable = Annotated[
    Path | None, typer.Option("--items", help="A table of items: item_id, title, and whatever else there is.")
]
UserCol = Annotated[str | None, typer.Option("--user-col", help="The log's column of user ids.")]
ItemCol = Annotated[str | None, typer.Option("--item-col", help="The log's column of item ids.")]
ValueCol = Annotated[str | None, typer.Option("--value-col", help="The log's column of values (ratings, counts).")]
TimeCol = Annotated[str | None, typer.Option("--time-col", help="The log's column of times.")]
MinValue = Annotated[float | None, typer.Option("--min-value", help="Keep events of at least this value, as 1.")]
MinItems = Annotated[int | None, min_items(str(MIN_ITEMS))]
MinItemsOfAll = Annotated[int | None, min_items(str(LEFT_OPEN["min_items"]))]
MinItemsOfRecipe = Annotated[int | None, min_items("the recipe's")]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Drop bad rows and count them instead of stopping.")]
Duplicates = Annotated[Rule | None, duplicates(DEFAULT.duplicates)]
DuplicatesOfRecipe = Annotated[Rule | None, duplicates("the recipe's")]
Values = Annotated[Kept | None, values(DEFAULT.values)]
ValuesOfRecipe = Annotated[Kept | None, values("the recipe's")]
EmbeddingKind = Literal["latent", "retrieval"]
"""`recae.models.base.EmbeddingKind`, spelled again for the same reason as MODEL_NAMES."""
METRICS_PER_USER = "ndcg@100,recall@20,recall@50,mrr@100"
"""What is measured of one model or file: nothing of the catalogue, which a file of recommendations does not tell."""

Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        help="A list such as recall@20,rmse.",
        show_default=f"{METRICS_PER_USER}; rmse before them of a model that learned from values",
    ),
]


def names(user: str | None, item: str | None, value: str | None, time: str | None) -> dict[str, str | None]:
    """Return the column options by what the columns are."""
    return {"user": user, "item": item, "value": value, "time": time}


def name_of(log: Path) -> str:
    """Return a log's file name as the name of an experiment: letters, digits, dots, dashes."""
    return re.sub(r"[^\w.-]+", "-", log.name.split(".")[0]).strip("-.") or "log"


def model_and_log(first: str, second: Path | None) -> tuple[str, Path]:
    """Return what MODEL EVENTS, or EVENTS alone, say; InputError for an unknown model, or where there is no log."""
    known = (*MODEL_NAMES, "default")
    if second is not None:
        if first not in known:
            raise ModelError(f"unknown model '{first}'{nearest(first, known)}")
        return first, second
    if not first or (first in known and not Path(first).exists()):
        raise InputError(f"train {first or 'MODEL'} wants a log: recae train {first or 'MODEL'} EVENTS --out DIR")
    return "default", Path(first)


def read_plan(
    recipe: Path,
    settings: list[str] | None,
    *,
    data: Path | None,
    items: Path | None,
    columns: Mapping[str, str | None],
    seed: int | None,
    skip_bad_rows: bool,
    **rules: Any,
) -> "Plan":
    """Return a recipe with what a command's options put in the place of its keys; --set comes last.

    `rules` are keys of its data, None where the user gave none.
    """
    from recae.recipe import read_recipe, read_settings

    overrides: dict[str, Any] = {f"data.columns.{name}": column for name, column in columns.items() if column}
    if data is not None:
        # Another log is another experiment: reports and runs do not go by the name of the recipe's own.
        overrides |= {"data.path": str(data), "data.items": None, "name": name_of(data)}
    if items is not None:
        overrides["data.items"] = str(items)
    overrides |= {f"data.{name}": rule for name, rule in rules.items() if rule is not None}
    if skip_bad_rows:
        overrides["data.skip_bad_rows"] = True
    if seed is not None:
        overrides["seed"] = seed
    return read_recipe(recipe, overrides | read_settings(settings or []))


def data_section(
    events: Path,
    columns: Mapping[str, str | None],
    items: Path | None = None,
    *,
    otherwise: Mapping[str, Any] = MappingProxyType({}),
    **rules: Any,
) -> "DataSection":
    """Return a command's log as a recipe's `data` section, checked; EventsError where there is no log.

    `rules` are its keys, None where the user gave none: then a prepared log's own hold, or those in `otherwise`, or
    the recipe's defaults.
    """
    from recae.events import existing
    from recae.reading import DataSection, checked

    existing(events)
    given = {name: rule for name, rule in rules.items() if rule is not None}
    section = {"path": str(events), "columns": columns, "items": items and str(items), **given}
    return checked(DataSection, section, "command line", otherwise=otherwise)
