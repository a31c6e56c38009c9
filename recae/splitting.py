"""What a model may see, and what evaluation looks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from recae.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Fold:
    """Histories to score and the held-out items to find: the same users in the same order, the same items."""

    history: Interactions
    held_out: Interactions


@dataclass(frozen=True, eq=False)
class Split:
    """Interactions to train on, a fold to choose by, and a fold to report, all over the training items.

    `dropped` counts the events that are in none of them, by reason (an item no training user touched, …);
    `caveat` is what a reader of the figures must know about this split, or empty.
    """

    train: Interactions
    validation: Fold
    test: Fold
    dropped: Mapping[str, int] = field(default_factory=dict)
    caveat: str = ""
