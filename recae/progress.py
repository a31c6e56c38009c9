"""How long work tells the outside how far it is: the library never prints, it calls a listener."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Step:
    """One step of a task done: `done` of `total`, and the figures measured at it (loss, ndcg_at_100, …)."""

    task: str
    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSummary:
    """What an iterative fit did: how many epochs it ran, and the figures measured at each of them, in order.

    `best_epoch`, counted from 1, is the one whose weights the model kept, by the figure of the key `watched`, if any.
    `chosen` is what became of hyper-parameters that were left open, and what else the fit chose, by name.
    """

    epochs: int
    best_epoch: int
    updates: int
    seconds: float
    curve: list[dict[str, float]]
    watched: str | None = None
    chosen: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Step], None]


def silence(step: Step) -> None:
    """Listen to nothing."""
