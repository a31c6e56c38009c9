"""What is done to a history before an autoencoder has to reconstruct it.

Interactions are hidden (dropout), others are made up (salt), values are blurred (noise); or the history is cut in two,
and one part is to be told from the other. An entry of a batch is there if its value is not zero: see `Batch.keep`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recae.autoencoder.batches import Batch


@dataclass(frozen=True)
class Corruption:
    """How a history is corrupted; nothing is where a rate is 0.

    dropout:    chance of an interaction to be hidden
    salt:       chance of an interaction to be joined by one with an item drawn at random, of the same value
    noise:      standard deviation of what is added to values
    half_split: whether a history is first cut at random into the part that is shown and the part to reconstruct
    shown:      chance of an interaction to fall to the part that is shown
    """

    dropout: float
    salt: float = 0.0
    noise: float = 0.0
    half_split: bool = False
    shown: float = 0.5

    def __call__(
        self, batch: Batch, items: int, read: Callable[[Batch], Batch], generator: torch.Generator
    ) -> tuple[Batch, Batch]:
        """Return what a network of so many items is shown and what it is to reconstruct, of the same users.

        `read` is what the network does to every history first. Interactions are hidden after it, as in the code
        published with Liang et al. 2018; made up and blurred before.
        """
        shown, target = halves(batch, generator, self.shown) if self.half_split else (batch, batch)
        shown = add_items(add_noise(shown, self.noise, generator), self.salt, items, generator)
        return drop_interactions(read(shown), self.dropout, generator), target

    def but_split(self) -> "Corruption":
        """Return what is left of the corruption when all that is shown is shown as it is."""
        return replace(self, dropout=0.0, salt=0.0, noise=0.0)


def drop_interactions(batch: Batch, rate: float, generator: torch.Generator) -> Batch:
    """Take each interaction away with probability `rate`, and scale those that stay by 1 / (1 - rate).

    The expected value of every interaction stays what it was: Liang et al. 2018, section 4.3.
    """
    if rate == 0:
        return batch
    draws = _uniform(batch, generator)
    return batch.with_values(batch.values / (1 - rate)).keep(draws >= rate)


def add_items(batch: Batch, rate: float, items: int, generator: torch.Generator) -> Batch:
    """Let each interaction be followed, with probability `rate`, by one of its value with any of so many items.

    Salt-and-pepper noise without the pepper: Vincent et al. 2010, section 3.3. An item may then be there twice.
    """
    if rate == 0:
        return batch
    salted = _uniform(batch, generator) < rate
    strangers = torch.randint(items, batch.items.shape, generator=generator, device=batch.items.device)
    pairs = replace(
        batch,
        offsets=2 * batch.offsets,
        users=batch.users.repeat_interleave(2),
        items=torch.stack([batch.items, strangers], dim=1).flatten(),
        values=batch.values.repeat_interleave(2),
    )
    return pairs.keep(torch.stack([torch.ones_like(salted), salted], dim=1).flatten())


def add_noise(batch: Batch, deviation: float, generator: torch.Generator) -> Batch:
    """Add a normal number of mean 0 and this standard deviation to every value: Vincent et al. 2010, section 3.3."""
    if deviation == 0:
        return batch
    noise = torch.randn(batch.values.shape, generator=generator, device=batch.values.device)
    return batch.with_values(batch.values + deviation * noise * (batch.values != 0))


def halves(batch: Batch, generator: torch.Generator, shown: float = 0.5) -> tuple[Batch, Batch]:
    """Cut every history in two, each interaction falling to the first part with probability `shown`.

    Vančura and Kordík 2021, Deep Variational Autoencoder with Shallow Parallel Path for Top-N Recommendation (VASP).
    """
    first = _uniform(batch, generator) < shown
    return batch.keep(first), batch.keep(~first)


def _uniform(batch: Batch, generator: torch.Generator) -> Tensor:
    return torch.rand(batch.values.shape, generator=generator, device=batch.values.device)
