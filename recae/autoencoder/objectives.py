"""What training minimises, and in which order: objectives, and the phases of an epoch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from recae.autoencoder.batches import Batch, Example

Schedule = Mapping[str, float]
"""Figures that change from one update to the next, such as the weight of a divergence."""


class Draw(Protocol):
    """Make an example of a batch. Everything random of an update happens here, once, for all of its users."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example: ...


class Loss(Protocol):
    """Return a loss for each user of an example, (users): of a part of it alone, it is that part of the whole."""

    def __call__(self, example: Example, schedule: Schedule) -> Tensor: ...


def constant(updates: int) -> Schedule:
    """Return the schedule of an objective that stays the same."""
    return {}


@dataclass(frozen=True)
class Objective:
    """An update minimises the mean of the loss over the batch's users; `schedule` is told the updates made so far."""

    draw: Draw
    loss: Loss
    schedule: Callable[[int], Schedule] = constant


def nothing() -> None:
    """Do nothing."""


def no_figures() -> Mapping[str, float]:
    """Tell nothing."""
    return {}


@dataclass(frozen=True)
class Phase:
    """Passes over all users that share an objective and the part of the network they move (default: all of it).

    Every phase has an optimiser of its own. An epoch is all phases in their order; `after` is called at the end of
    this one, then `figures` for what it has to tell of the network. What lives longer than an epoch has to be in the
    network, where checkpoints find it.
    """

    objective: Objective
    moves: nn.Module | None = None
    passes: int = 1
    after: Callable[[], None] = nothing
    figures: Callable[[], Mapping[str, float]] = no_figures
