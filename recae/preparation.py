"""The rules by which a log becomes interactions, their defaults, and the rules that a prepared log was made by.

The command line shows the defaults before it imports anything: here is nothing that takes time to import.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from recae.errors import EventsError

Duplicates = Literal["last", "first", "max", "sum", "mean"]
"""What becomes of several events of one user with one item.

The latest or the earliest stays (by time, then by row); or they become their largest value, sum or mean, with the
latest time.
"""

Values = Literal["binary", "keep"]

MIN_ITEMS = 5
"""Users with fewer items are left out of a training or an experiment, unless the user rules otherwise."""

LEFT_OPEN: Mapping[str, Any] = MappingProxyType({"values": "keep", "min_items": 1})
"""The rules that take nothing from a log: who reads what was prepared by them can still rule as if it were the log."""

PREPARED = "interactions.json"
"""The file that marks a directory of saved interactions."""

RULES = "preparation.json"
"""The file of a prepared directory that says by which rules it was made."""


@dataclass(frozen=True)
class Preparation:
    """Which events count, and as what.

    Events below `min_value` do not (a log without values keeps all); stored values are 1 ("binary") or those of the
    log ("keep"; 1 where it has none, so that "sum" counts events); `duplicates` says what several events of one user
    with one item become.
    """

    min_value: float | None = None
    values: Values = "binary"
    duplicates: Duplicates = "last"

    def __post_init__(self) -> None:
        if self.values not in get_args(Values) or self.duplicates not in get_args(Duplicates):
            raise ValueError(f"no such preparation: {self}")


DEFAULT = Preparation()


def prepared_at(source: str | Path) -> Path | None:
    """Return the directory of interactions that lies where a log might be; None where there is none."""
    try:
        path = Path(source).expanduser()
        return path if (path / PREPARED).is_file() else None
    except (OSError, RuntimeError, ValueError):
        # No path at all: whoever opens it as a log will say why.
        return None


def write_rules(directory: Path, preparation: Preparation, min_items: int) -> None:
    """Write by which rules a directory was prepared."""
    rules = {**asdict(preparation), "min_items": min_items}
    (directory / RULES).write_text(json.dumps(rules, indent=2), encoding="utf-8")


def read_rules(directory: Path) -> dict[str, Any]:
    """Return the rules that a directory was prepared by: the fields of Preparation, and min_items."""
    path = directory / RULES
    try:
        rules = json.loads(path.read_text(encoding="utf-8"))
        least, min_items = rules["min_value"], int(rules["min_items"])
        preparation = Preparation(None if least is None else float(least), rules["values"], rules["duplicates"])
        if min_items < 1 or not math.isfinite(preparation.min_value or 0):
            raise ValueError("out of range")
    except FileNotFoundError as error:
        raise EventsError(
            f"{directory}: saved without its rules ({RULES} is missing); prepare the log again"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise EventsError(f"{path}: damaged, not what was saved; prepare the log again") from error
    return {**asdict(preparation), "min_items": min_items}


def contradiction(rules: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """Return which rule of a prepared log forbids what is asked of it; None if none does.

    Values that were kept can be taken as binary, and more items asked of each user: whatever else is ruled otherwise
    needs events that are gone.
    """
    for name, rule in rules.items():
        wanted = asked.get(name, rule)
        can_be_had = wanted > rule if name == "min_items" else (rule, wanted) == ("keep", "binary")
        if wanted != rule and not can_be_had:
            return name
    return None


def in_words(name: str, rule: Any) -> str:
    """Return what a rule says, in words."""
    return f"no {name}" if rule is None else f"{name} {rule}"
