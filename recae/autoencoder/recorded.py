"""An update recorded once and played back, so that the processor does not start some hundred kernels one by one.

A recording (a CUDA graph) repeats the same kernels on the same memory. So whatever changes from one update to the next
goes through tensors that stay where they are: the batch, padded to the same number of entries, and the schedule's
figures; weights, moments and the random generator's state are such tensors already. torch.compile would capture as
well, but compiles for minutes first, and anew for every shape.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import cast

import torch
from torch import Tensor

from recae.autoencoder.batches import Batch
from recae.autoencoder.objectives import Schedule
from recae.errors import NotRecorded

FIRST = 3
"""How many updates are made one by one first: they compile kernels, choose products, make the optimiser's moments."""

LARGEST = 2**27
"""How many parameters a network has at most for its updates to be recorded. Adam alone passes 28 bytes for each through
memory, a millisecond for so many on an H100: the device is busy for longer than the processor, and a recording would
keep the memory of their gradients for itself."""

SPREAD = 4
"""How many standard deviations above the mean number of interactions a batch has room for: 1 in 30,000 has more."""

Update = Callable[[Batch, Schedule], Tensor]
"""Move the weights once, and return the sum of the batch's losses."""

Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Record some work without doing it, and return what plays it back."""


def usual_room(lengths: Tensor, users: int) -> int:
    """Return how many interactions a batch of so many users drawn from (all users) has, but for rare ones."""
    lengths = lengths.double()
    spread = float(lengths.std(correction=0)) * users**0.5
    largest = int(lengths.topk(users).values.sum())
    return min(largest, int(lengths.mean() * users + SPREAD * spread) + 1)


@dataclass(eq=False)
class RecordedUpdate:
    """An update of batches of `users` users, recorded once `FIRST` were made.

    Batches of other sizes, the last of a pass and those that have more interactions than there is `room`, take the
    update itself. So does everything, with one NotRecorded warning, where recording fails. The result is the same.
    """

    update: Update
    users: int
    room: int
    record: Record
    made: int = 0
    failed: bool = False
    play: Callable[[], Tensor] | None = None
    batch: Batch | None = None
    schedule: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, batch: Batch, schedule: Schedule) -> Tensor:
        """Make an update; what is returned is overwritten by the next one."""
        if len(batch) != self.users or len(batch.items) > self.room:
            return self.update(batch, schedule)
        batch = batch.padded(self.room)
        if self.play is None and self.made >= FIRST and not self.failed:
            self.play = self._recorded(batch, schedule)
        self.made += 1
        if self.play is None or self.batch is None:
            return self.update(batch, schedule)
        for part in fields(Batch):
            getattr(self.batch, part.name).copy_(getattr(batch, part.name))
        for name, figure in schedule.items():
            self.schedule[name].fill_(figure)
        return self.play()

    def _recorded(self, batch: Batch, schedule: Schedule) -> Callable[[], Tensor] | None:
        held = Batch(*(getattr(batch, part.name).clone() for part in fields(Batch)))
        device = held.values.device
        figures = {name: torch.tensor(figure, dtype=torch.float32, device=device) for name, figure in schedule.items()}
        self.batch, self.schedule = held, figures
        try:
            # A figure in a tensor multiplies like the number it holds.
            return self.record(lambda: self.update(held, cast(Schedule, figures)))
        except RuntimeError as error:
            self.failed = True
            warnings.warn(
                f"a training step could not be recorded on CUDA, so each is started anew, which changes nothing but "
                f"speed ({(str(error) or type(error).__name__).splitlines()[0]})",
                NotRecorded,
                stacklevel=3,
            )
            return None


def record_on_cuda(generator: torch.Generator, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record work that draws from a generator; played back, it goes on drawing as if it were done anew."""
    before = generator.clone_state()
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    try:
        # A thread that sends the next batches may go on meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = work()
    except RuntimeError:
        generator.graphsafe_set_state(before)
        raise

    def play() -> Tensor:
        graph.replay()
        return result

    return play
