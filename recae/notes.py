"""What a reader must know of the events that were read and do not count, or count for less: in words.

A note is a sentence that follows a number; it goes with that number.
"""

from collections.abc import Mapping

from recae.rows import MISFIT, REASONS

_SAID = {
    **{key: f"rows with {reason}: skipped" for key, reason in (MISFIT, *REASONS.values())},
    "below_min_value": "events below min_value: left out",
    "min_value_ignored": "events have no value, so min_value was not applied",
    "duplicates": "repeated events of one user with one item: merged",
    "rare_items": "items with fewer than min_users users: left out",
    "events_of_rare_items": "events of those items: left out",
    "short_users": "users with fewer than min_items items: left out",
    "events_of_short_users": "events of those users: left out",
    "unknown_item_events": "events of items the model does not know: left out",
}


def notes(counts: Mapping[str, int]) -> dict[str, int]:
    """Return a note for each of an Interactions' counts that is one of events left out or merged, and is not zero."""
    return {note: counts[key] for key, note in _SAID.items() if counts.get(key)}
