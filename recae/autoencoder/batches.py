"""Histories on the device, and the batches cut from them there.

A batch is a list of interactions, never a users × items array: its cost follows what the users did.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn.functional import pad

from recae.autoencoder.sampling import Sample


@dataclass(frozen=True, eq=False)
class Batch:
    """The interactions of a few users, one user after the other.

    offsets: (users + 1) int64, user u's interactions are those from offsets[u] up to offsets[u + 1]
    users:   (interactions) int64, counted from the first user of the batch
    items:   (interactions) int64
    values:  (interactions) float32
    rows:    (users) int64, which row of the matrix that the batch was cut from each user is; empty where nobody asks
    """

    offsets: Tensor
    users: Tensor
    items: Tensor
    values: Tensor
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def with_values(self, values: Tensor) -> "Batch":
        """Return the same interactions with other values."""
        return replace(self, values=values)

    def keep(self, flags: Tensor) -> "Batch":
        """Return the batch without the interactions that are not flagged, (interactions) bool.

        On CUDA they stay, with the value zero: to count them, the processor would have to wait for the device.
        """
        if flags.is_cuda:
            return self.with_values(self.values * flags)
        kept = flags.nonzero().squeeze(1)
        users = self.users.index_select(0, kept)
        offsets = torch.searchsorted(users, torch.arange(len(self) + 1))
        items, values = self.items.index_select(0, kept), self.values.index_select(0, kept)
        return replace(self, offsets=offsets, users=users, items=items, values=values)

    def padded(self, room: int) -> "Batch":
        """Return the batch with entries of the value zero after its interactions, so that there are `room` of them.

        They lie beyond the last offset, and name users in turn: zeros added to one sum would wait for each other.
        """
        spare = room - len(self.items)
        others = torch.arange(spare, device=self.users.device) % len(self)
        users, items, values = (
            torch.cat([self.users, others]),
            pad(self.items, (0, spare)),
            pad(self.values, (0, spare)),
        )
        return replace(self, users=users, items=items, values=values)

    def part(self, start: int, stop: int) -> "Batch":
        """Return the batch of the users from `start` up to `stop` alone."""
        first, last = self.offsets[start], self.offsets[stop]
        return Batch(
            self.offsets[start : stop + 1] - first,
            self.users[first:last] - start,
            self.items[first:last],
            self.values[first:last],
            self.rows[start:stop],
        )

    def sum_by_user(self, amounts: Tensor) -> Tensor:
        """Return the sum of an amount per interaction over each user's interactions, (users)."""
        return amounts.new_zeros(len(self)).index_add(0, self.users, amounts)


@dataclass(frozen=True, eq=False)
class Example:
    """What a network is shown of some users, what it is to reconstruct, and what else an objective has drawn.

    input, target: the same users in the same order
    noise:         (users, latent) standard normal; empty where the network draws no code
    sample:        the items that stand for the whole catalogue, for all users the same; None where all of it is taken
    common:        what else is of the whole batch, and the same for each part of it: the objective's own matter
    """

    input: Batch
    target: Batch
    noise: Tensor = field(default_factory=lambda: torch.empty(0))
    sample: Sample | None = None
    common: Tensor = field(default_factory=lambda: torch.empty(0))

    def __len__(self) -> int:
        return len(self.target)

    def part(self, start: int, stop: int) -> "Example":
        """Return the example of the users from `start` up to `stop` alone."""
        if (start, stop) == (0, len(self)):
            return self
        return replace(
            self,
            input=self.input.part(start, stop),
            target=self.target.part(start, stop),
            noise=self.noise[start:stop],
        )


@dataclass(frozen=True, eq=False)
class Histories:
    """A CSR matrix, users × items, on a device: indptr int64, indices int32, values float32."""

    indptr: Tensor
    indices: Tensor
    values: Tensor

    @classmethod
    def of(cls, matrix: csr_matrix, device: str | torch.device) -> "Histories":
        """Put a matrix on a device."""
        return cls(
            torch.as_tensor(matrix.indptr.astype(np.int64), device=device),
            torch.as_tensor(matrix.indices.astype(np.int32), device=device),
            torch.as_tensor(matrix.data.astype(np.float32), device=device),
        )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def lengths(self) -> Tensor:
        """Return how many interactions each user has, (users) on the CPU."""
        return self.indptr.diff().cpu()

    def batch(self, chosen: Tensor, interactions: int | None = None) -> Batch:
        """Return the batch of the chosen users (int64 row numbers on the same device), in their order.

        Without being told how many interactions they have, the processor waits for the device to count them.
        """
        starts = self.indptr[chosen]
        lengths = self.indptr[chosen + 1] - starts
        offsets = pad(lengths.cumsum(0), (1, 0))
        users = torch.arange(len(chosen), device=chosen.device).repeat_interleave(lengths, output_size=interactions)
        position = torch.arange(len(users), device=chosen.device) + (starts - offsets[:-1]).index_select(0, users)
        items, values = self.indices.index_select(0, position).long(), self.values.index_select(0, position)
        return Batch(offsets, users, items, values, chosen)

    def batches(self, order: Tensor, size: int) -> Iterator[Batch]:
        """Cut batches of `size` users in an order, row numbers on the same device; the last one has the rest."""
        ends = pad((self.indptr[order + 1] - self.indptr[order]).cumsum(0), (1, 0))
        counts = ends[[*range(0, len(order), size), len(order)]].diff().tolist()
        for chosen, interactions in zip(torch.split(order, size), counts, strict=True):
            yield self.batch(chosen, interactions)


def batch_of(matrix: csr_matrix, device: str | torch.device) -> Batch:
    """Return all the histories of a matrix as one batch."""
    histories = Histories.of(matrix, device)
    return histories.batch(torch.arange(len(histories), device=device))


def unit_length(batch: Batch) -> Batch:
    """Divide each user's values by their Euclidean norm; a user without interactions stays without."""
    norms = batch.sum_by_user(batch.values**2).sqrt()
    # Only an entry with the value zero can be of a user whose norm is zero.
    return batch.with_values(batch.values / norms.clamp(min=torch.finfo(norms.dtype).tiny).index_select(0, batch.users))
