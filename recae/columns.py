"""Which column of a table is what: named by the user, or found by its usual spelling."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recae.errors import EventsError, nearest

USER, ITEM, VALUE, TIME = "user_id", "item_id", "value", "timestamp"
"""The columns of a checked log, in this order; the last two may be absent."""

SPELLINGS = {
    USER: ("userid", "user", "uid", "customerid", "customer", "visitorid", "memberid", "accountid", "reviewerid"),
    ITEM: (
        "itemid",
        "item",
        "iid",
        "movieid",
        "movie",
        "productid",
        "product",
        "articleid",
        "trackid",
        "songid",
        "sku",
    ),
    VALUE: ("value", "rating", "score", "weight", "ratings", "stars", "overall", "plays", "playcount", "count"),
    TIME: ("timestamp", "time", "ts", "datetime", "date", "eventtime", "createdat", "unixtime", "unixreviewtime"),
}
"""The usual names of each column, the likeliest first; case and anything but letters and digits do not matter."""

OPTIONS = {USER: "--user-col", ITEM: "--item-col", VALUE: "--value-col", TIME: "--time-col"}
ARGUMENTS = {
    role: f"columns=Columns({name}=...)" for role, name in zip(OPTIONS, ("user", "item", "value", "time"), strict=True)
}
"""How messages tell to name a column: of a file on the command line, of a DataFrame in Python."""


@dataclass(frozen=True)
class Columns:
    """The names of a log's columns: None looks for the usual spellings; "" says that a log has no value or no time.

    `wants_value` says that a log cannot do without values; it is no name, and does not make names differ.
    """

    user: str | None = None
    item: str | None = None
    value: str | None = None
    time: str | None = None
    wants_value: bool = field(default=False, compare=False)

    def choose(self, file: str, header: Sequence[str], ways: Mapping[str, str] = OPTIONS) -> dict[str, str]:
        """Return the name of each role's column in a table with this header: always two ids, a value or time if any.

        Raises EventsError where an id's column or one that was asked for is missing, or a choice is not unique; and
        where there is no value, and one is wanted.
        """
        chosen: dict[str, str] = {}
        for role, asked in zip(OPTIONS, (self.user, self.item, self.value, self.time), strict=True):
            if asked == "" and role in (VALUE, TIME):
                continue
            way = ways[role]
            name = _usual(file, header, role, way) if asked is None else _named(file, header, asked, way)
            if name is None and role in (USER, ITEM):
                kind = "user" if role == USER else "item"
                raise EventsError(f"{file}: no {kind} column among {_listed(header)}; name it with {way}")
            if name is None and role == VALUE and self.wants_value:
                raise EventsError(
                    f"{file}: values are to be kept, and no column of values found among {_listed(header)}; "
                    f"name it with {way} (in a recipe data.columns.value)"
                )
            if name is not None:
                chosen[role] = name
        for name, times in Counter(chosen.values()).items():
            if times > 1 or header.count(name) > 1:
                options = " and ".join(ways[role] for role in chosen if chosen[role] == name)
                raise EventsError(f"{file}: column '{name}' is not one column for one thing; look at {options}")
        return chosen


def choose_item(file: str, header: Sequence[str], asked: str | None = None, *, of_log: str | None = None) -> str:
    """Return the name of the id column of an item table: `asked`, or a usual one, or what the log calls its own."""
    way = OPTIONS[ITEM]
    name = _usual(file, header, ITEM, way) if asked is None else _named(file, header, asked, way)
    if name is None and of_log in header:
        name = of_log
    if name is None or header.count(name) > 1:
        like_log = f", or {of_log} as in the log" if of_log and of_log != ITEM else ""
        raise EventsError(f"{file}: not one item id column among {_listed(header)}; call it item_id{like_log}")
    return name


def _named(file: str, header: Sequence[str], asked: str, way: str) -> str:
    if asked not in header:
        hint = nearest(asked, header) if len(header) <= 12 else ""
        raise EventsError(f"{file}: no column '{asked}' among {_listed(header)}{hint} ({way})")
    return asked


def _usual(file: str, header: Sequence[str], role: str, way: str) -> str | None:
    plain = {name: re.sub(r"[^a-z0-9]", "", name.lower()) for name in header}
    for spelling in SPELLINGS[role]:
        found = [name for name in plain if plain[name] == spelling]
        if len(found) > 1:
            raise EventsError(f"{file}: columns {_listed(found)} could both be meant; choose with {way}")
        if found:
            return found[0]
    return None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:12])
    return f"{shown}, … ({len(names)} columns)" if len(names) > 12 else shown or "no columns at all"
