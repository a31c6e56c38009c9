"""Where histories stay while a network is trained on them: on the device, or, where they do not fit, in front of it."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recae.autoencoder.batches import Batch, Histories
from recae.device import available_memory

AHEAD = 2
"""How many batches are on their way while the device works on one."""

SHARE = 0.25
"""Of a device's free memory, what histories may take; the rest is for weights, gradients, moments and activations."""


class Source(Protocol):
    """Histories as a training reads them."""

    def __len__(self) -> int: ...

    def lengths(self) -> Tensor:
        """Return how many interactions each user has, (users) on the CPU."""

    def batches(self, order: Tensor, size: int) -> Iterator[Batch]:
        """Cut batches of `size` users in an order, row numbers on the device; the last one has the rest."""


def place(matrix: csr_matrix, device: str) -> Source:
    """Put a matrix on a device if it takes no more than SHARE of what is free there, else have it streamed.

    Both give the same batches, to the bit.
    """
    needed = 8 * (matrix.shape[0] + 1) + 8 * matrix.nnz
    available = available_memory(device)
    if device == "cpu" or available is None or needed <= SHARE * available:
        return Histories.of(matrix, device)
    return Streamed(Histories.of(matrix, "cpu"), torch.device(device))


@dataclass(frozen=True, eq=False)
class Streamed:
    """Histories on the CPU; a thread of its own cuts the next batches and sends them while the device works on one."""

    histories: Histories
    device: torch.device

    def __len__(self) -> int:
        return len(self.histories)

    def lengths(self) -> Tensor:
        """Return how many interactions each user has, (users) on the CPU."""
        return self.histories.lengths()

    def batches(self, order: Tensor, size: int) -> Iterator[Batch]:
        """Cut batches of `size` users in an order, row numbers on the device; the last one has the rest."""
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        sent: deque = deque()
        with ThreadPoolExecutor(max_workers=1) as sender:
            for chosen in torch.split(order.cpu(), size):
                sent.append(sender.submit(self._send, chosen, stream))
                if len(sent) > AHEAD:
                    yield _received(*sent.popleft().result())
            while sent:
                yield _received(*sent.popleft().result())

    def _send(self, chosen: Tensor, stream: torch.cuda.Stream | None) -> tuple[Batch, torch.cuda.Event | None]:
        batch = self.histories.batch(chosen)
        if stream is None:
            return batch, None
        # From pinned memory the copy runs beside the device's other work; torch keeps that memory until it is done.
        with torch.cuda.stream(stream):
            parts = (getattr(batch, part.name) for part in fields(Batch))
            batch = Batch(*(part.pin_memory().to(self.device, non_blocking=True) for part in parts))
            return batch, stream.record_event()


def _received(batch: Batch, arrived: torch.cuda.Event | None) -> Batch:
    """Make the device wait for a batch, not the processor; and keep its memory until the device is done with it."""
    if arrived is not None:
        stream = torch.cuda.current_stream(batch.offsets.device)
        stream.wait_event(arrived)
        for part in fields(Batch):
            getattr(batch, part.name).record_stream(stream)
    return batch
