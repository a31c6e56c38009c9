"""A log by the `data` section of a recipe: read into interactions, or prepared as a directory that stands for it.

Here is nothing that models need, so that whoever only looks at a log does not wait for torch.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from recae.columns import choose_item
from recae.errors import EventsError, ModelError, RecipeError, SplitError
from recae.events import VALUE, Columns, Events, EventStream, existing, open_events, read_given_split, read_items
from recae.files import require_place, whole_directory
from recae.interactions import OTHERWISE, Interactions, of_items_with, of_users_with, prepare_into, read_prepared
from recae.notes import counted, notes
from recae.preparation import (
    DEFAULT,
    LEFT_OPEN,
    MIN_ITEMS,
    PREPARED,
    Duplicates,
    Preparation,
    Values,
    prepared_at,
    read_rules,
)
from recae.sources import TABLES, column_names, file_at

Log = TypeVar("Log", bound=Events | EventStream)

SectionType = TypeVar("SectionType", bound="Section")


class Section(BaseModel):
    """A part of a recipe: typed strictly, closed to unknown keys, fixed once read."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ColumnsSection(Section):
    """What the log calls its columns; None looks for the usual spellings."""

    user: str | None = None
    item: str | None = None
    value: str | None = None
    time: str | None = None


class DataSection(Section):
    """Where the log is and which of its events count.

    `path` is relative to the recipe's folder, and may be what `data prepare` wrote, whose rules then hold where no
    others are given. `min_value` keeps events of at least that value and makes them all 1; `min_users` drops items
    with fewer users, and after that `min_items` drops users with fewer items: each in one pass.
    """

    path: str
    items: str | None = None
    columns: ColumnsSection = ColumnsSection()
    min_value: float | None = DEFAULT.min_value
    min_users: Annotated[int, Field(ge=1)] = 1
    min_items: Annotated[int, Field(ge=1)] = MIN_ITEMS
    values: Values = DEFAULT.values
    duplicates: Duplicates = DEFAULT.duplicates
    skip_bad_rows: bool = False

    @property
    def names(self) -> Columns:
        """The column names as the reader takes them."""
        return Columns(**self.columns.model_dump())

    @property
    def preparation(self) -> Preparation:
        """Which events count, and as what."""
        return Preparation(min_value=self.min_value, values=self.values, duplicates=self.duplicates)

    @property
    def rules(self) -> dict[str, Any]:
        """The rules as those of a prepared log are written down."""
        return {**asdict(self.preparation), "min_items": self.min_items}

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, raw: Any, info: ValidationInfo) -> Any:
        """Put in the rules that a prepared log was prepared with, where no others were given.

        What its preparation left open (LEFT_OPEN), and the rules of any other log, are those of the context, or else
        the defaults. A rule that was given stays, even where it contradicts the preparation: reading will say so.
        """
        if not isinstance(raw, dict):
            return raw
        directory = prepared_at(raw["path"]) if isinstance(raw.get("path"), str) else None
        rules = {} if directory is None else read_rules(directory)
        decided = {name: rule for name, rule in rules.items() if rule != LEFT_OPEN.get(name)}
        return {**(info.context or {}), **decided, **raw}


def checked(
    section: type[SectionType],
    raw: Mapping[str, Any],
    where: str,
    *,
    otherwise: Mapping[str, Any] | None = None,
    said: Callable[[Any], str] | None = None,
) -> SectionType:
    """Check a recipe, or a part of one, that is already a mapping; `where` names it in the error.

    `otherwise` has the rules of its data that are neither given nor decided by a preparation, where those are not the
    defaults; `said` turns the first of pydantic's errors into words.
    """
    try:
        return section.model_validate(raw, context=otherwise)
    except ValidationError as error:
        # A misspelt key is also a missing one, and the better news.
        problem = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise RecipeError(f"{where}: {(said or problem_in_words)(problem)}") from None
    except (RecipeError, ModelError) as error:
        raise type(error)(f"{where}: {error}") from None


def problem_in_words(problem: Any, key: str | None = None, reason: str | None = None) -> str:
    """Return one of pydantic's errors in words: the key, its value, and what is wrong with it."""
    key = key or ".".join(map(str, problem["loc"]))
    reason = reason or problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key} = {short(repr(problem['input']))}: {reason}"


def short(text: str) -> str:
    """Return a text as it fits into a message."""
    return text if len(text) <= 60 else text[:60] + "…"


def read_interactions(data: DataSection, *, otherwise: str = OTHERWISE, learned_from: bool = False) -> Interactions:
    """Read a log as a recipe says into interactions, or what `data prepare` has made of one.

    For `otherwise` see `recae.interactions.read_prepared`. What is `learned_from` must have values where these are to
    be kept (unless repeated events are counted, which gives them some): EventsError if it has none.
    """
    if data.min_users > 1:
        # Items come first, so no user may have gone before them.
        everything = read_interactions(
            data.model_copy(update={"min_users": 1, "min_items": 1}), otherwise=otherwise, learned_from=learned_from
        )
        return of_users_with(data.min_items, of_items_with(data.min_users, everything, data.path), data.path)
    directory = prepared_at(data.path)
    if directory is not None:
        if data.items is not None:
            raise EventsError(f"{directory}: prepared already, with its items; leave out the item table")
        require_usual(directory, data.names)
        prepared = read_prepared(directory, data.rules, otherwise=otherwise)
        if learned_from and _wants_values(data):
            _require_kept(directory, prepared)
        return prepared
    events = _opened(data, wants_values=learned_from)
    interactions = Interactions.from_events(events, data.preparation, min_items=data.min_items)
    _require_described(interactions.item_table, interactions.items.ids[0], data)
    return interactions


def read_parts(data: DataSection) -> dict[str, Interactions]:
    """Read a log whose files come split, each part of it as a recipe says."""
    if prepared_at(data.path) is not None:
        raise EventsError(
            f"{data.path}: prepared already, in one piece; give the log itself, whose files say what is train and "
            "what is test, or another split.kind"
        )
    names = replace(data.names, wants_value=_wants_values(data))
    parts = read_given_split(data.path, columns=names, skip_bad_rows=data.skip_bad_rows)
    for events in parts.values():
        _require_values(events, data)
    prepared = {
        name: Interactions.from_events(_with_items(events, data), data.preparation) for name, events in parts.items()
    }
    _require_described(prepared["train"].item_table, prepared["train"].items.ids[0], data)
    return prepared


def require_usual(directory: Path, columns: Columns) -> None:
    """Raise EventsError for columns that are named for a log that is prepared already."""
    if columns != Columns():
        raise EventsError(f"{directory}: prepared already, and has no columns to choose; leave their names out")


def prepare_log(data: DataSection, out: Path, *, overwrite: bool = False) -> Interactions:
    """Read a log as a recipe says into a directory that can be given in the place of the log."""
    require_place(out, PREPARED, overwrite=overwrite)
    with whole_directory(out, overwrite=overwrite) as draft:
        prepare_into(draft, _opened(data), data.preparation, min_items=data.min_items)
        if data.items is not None:
            items, told = (pd.read_parquet(draft / f"{name}.parquet") for name in ("items", "item_table"))
            _require_described(told, items["id"].iloc[0], data)
    return Interactions.load(out)


@contextmanager
def naming_source(data: DataSection, counts: Mapping[str, int] = MappingProxyType({})) -> Iterator[None]:
    """Put the log's name before what is wrong with splitting it, and behind it what had been left out until then."""
    try:
        yield
    except SplitError as error:
        left_out = "; ".join(counted(count, note) for note, count in notes(counts, data.model_dump()).items())
        raise SplitError(f"{data.path}: {error}" + (f" (before the split: {left_out})" if left_out else "")) from None


def _opened(data: DataSection, *, wants_values: bool = False) -> Events | EventStream:
    names = replace(data.names, wants_value=wants_values and _wants_values(data))
    events = open_events(data.path, columns=names, skip_bad_rows=data.skip_bad_rows)
    if wants_values:
        _require_values(events, data)
    return _with_items(events, data)


def _wants_values(data: DataSection) -> bool:
    """Return whether the log cannot do without values: "sum" makes some of a log that has none."""
    return data.rules["values"] == "keep" and data.duplicates != "sum"


def _require_values(events: Events | EventStream, data: DataSection) -> None:
    """Raise EventsError where a log of known columns, or one whose recipe says so, has no values to keep."""
    if _wants_values(data) and VALUE not in events.columns:
        raise EventsError(f"{events.source}: values are to be kept, and this log has none; leave out values: keep")


def _require_kept(directory: Path, prepared: Interactions) -> None:
    """Raise EventsError where there is nothing but ones, and no word of values in the log they were made from."""
    told = {"with_values", "below_min_value"} & prepared.counts.keys()
    if not told and (prepared.matrix.data == 1).all():
        raise EventsError(
            f"{directory}: values are to be kept, and every one in it is 1; prepare the log again, and name the column "
            "of values with --value-col"
        )


def _with_items(events: Log, data: DataSection) -> Log:
    return events if data.items is None else replace(events, items=_read_items(data.items, data.columns.item))


def _read_items(source: str, of_log: str | None) -> pd.DataFrame:
    """Read an item table; where none of its columns has a usual name of ids, the one that is called as in the log."""
    path, column = existing(source), None
    if of_log is not None and path.is_file() and file_at(path).kind in TABLES:
        column = choose_item(str(path), column_names(file_at(path)), of_log=of_log)
    return read_items(path, column=column)


def _require_described(item_table: pd.DataFrame, item: Any, data: DataSection) -> None:
    """Raise EventsError if the item table that was asked for tells nothing of any item in the log, such as `item`."""
    if data.items is not None and item_table.isna().all(axis=None):
        raise EventsError(
            f"{data.items}: tells nothing of any item in {data.path}, such as {item}; are these the same ids?"
        )
