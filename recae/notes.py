"""What a reader must know of the events that were read and do not count, or count for less: in words.

A note is a sentence that follows a number; it goes with that number.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from recae.rows import MISFIT, REASONS

_SAID = {
    **{key: f"rows with {reason}: skipped" for key, reason in (MISFIT, *REASONS.values())},
    "below_min_value": "events below min_value: left out",
    "min_value_ignored": "events have no value, so min_value was not applied",
    "with_values": "events have values that are not looked at: each counts the same; --values keep would keep them",
    "with_ratings": "events have values that are not looked at: each counts the same; --min-value would keep the high "
    "ones alone (4 of 5 stars, say: --min-value 4), --values keep all as they are",
    "duplicates": "repeated events of one user with one item: merged",
    "rare_items": "items with fewer than min_users users: left out",
    "events_of_rare_items": "events of those items: left out",
    "short_users": "users with fewer than min_items items: left out",
    "events_of_short_users": "events of those users: left out",
    "unknown_item_events": "events of items the model does not know: left out",
}


def notes(counts: Mapping[str, int], rules: Mapping[str, Any] = MappingProxyType({})) -> dict[str, int]:
    """Return a note for each of an Interactions' counts that is not zero and that a reader should know of.

    `rules` are those by which the log was read: with them, a note says how many are few, and of values that differ
    whether they count.
    """

    def with_number(rule: re.Match[str]) -> str:
        return f"{rules[rule[1]]} {rule[2]} ({rule[1]})" if rule[1] in rules else rule[0]

    silent = {"with_values", "with_ratings"} if rules.get("values") != "binary" else set()
    silent |= {"with_values"} if counts.get("with_ratings") else set()
    return {
        re.sub(r"(min_items|min_users) (items|users)", with_number, note): counts[key]
        for key, note in _SAID.items()
        if counts.get(key) and key not in silent
    }


def counted(count: int, note: str) -> str:
    """Return a note behind its number, in the singular for one."""
    if count == 1:
        note = re.sub(
            r"\b(user|item|event|row|epoch|interaction)s\b( have\b)?",
            lambda one: one[1] + " has" * bool(one[2]),
            note,
            count=1,
        )
    return f"{count:,} {note}"
