"""Where the time goes: stages of the work, named where they are done, and a trace of a short stretch of them.

While no profile is taken a stage costs the look at one variable. While one is, the seconds of every stage add up over
all of the work, and torch records a stretch of it operation by operation: the second epoch, whose first has warmed
everything up, or all of the work where there are no epochs, and no more than UPDATES rounds of it.

On CUDA, the processor then waits at both ends of every stage for what it has asked for: a stage's seconds are its own,
and all of the work takes somewhat longer. An update that is played back from a recording (a CUDA graph) is one piece:
it counts under "step", and no stage within it is seen.
"""

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as Recording

from recae.errors import OutputError
from recae.files import refuse_existing, whole_file
from recae.progress import Listener, Step

UPDATES = 50
"""How often any one stage is recorded in a trace: some megabytes, and enough to see what repeats."""

SHOWN = 15
"""How many operations of a trace are told of: the longest."""

ELSEWHERE = "elsewhere"

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Spent:
    """How often something was done, and the seconds it took itself, without the named things within it.

    `share` is that of all seconds of its kind.
    """

    name: str
    calls: int
    seconds: float
    share: float


@dataclass(eq=False)
class _Open:
    """A stage that goes on, the seconds of those within it, and its span in the recording that runs, if one does.

    A span must end in the recording it began in. Torch keeps it in memory of that recording's own: ended during the
    next one, it writes to where that memory was, and the process crashes (SIGSEGV), then or later.
    """

    name: str
    within: float = 0.0
    span: record_function | None = None

    def begin(self) -> None:
        self.span = record_function(self.name)
        self.span.__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        if self.span is not None:
            self.span.__exit__(None, None, None)
            self.span = None


class Profile:
    """What is known of where the time went, once it is taken: see `take`."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._begun = time.perf_counter()
        self._total = self._overhead = 0.0
        self._calls = Counter[str]()
        self._seconds = defaultdict[str, float](float)
        self._open: list[_Open] = []
        self._warm = False
        self._stretch = "from its start"
        # Of what torch's recorder prints whenever it starts and stops, nothing is for a user's eyes.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        self._record()

    def stages(self) -> list[Spent]:
        """Return the stages of all of the work, the longest first, and last what was done outside of any."""
        spent = [
            Spent(name, calls, self._seconds[name], self._seconds[name] / self._total)
            for name, calls in self._calls.items()
        ]
        rest = max(0.0, self._total - sum(self._seconds.values()))
        return [
            *sorted(spent, key=lambda one: one.seconds, reverse=True),
            Spent(ELSEWHERE, 1, rest, rest / self._total),
        ]

    def tables(self) -> dict[str, str | list[dict[str, object]]]:
        """Return both, `stages` and `operations`, and what the latter are of, as plain values."""
        return {
            "stages": [asdict(spent) for spent in self.stages()],
            "operations_of": self.stretch,
            "operations": [asdict(spent) for spent in self.operations()],
        }

    def operations(self) -> list[Spent]:
        """Return what took longest in the recorded stretch, the longest first.

        Where a device did any of it, that is what the device did, in its seconds; else torch's operations.
        """
        seconds = [(event, event.self_device_time_total / 1e6) for event in self._by_device()]
        seconds = seconds or [(event, event.self_cpu_time_total / 1e6) for event in self._events()]
        total = sum(taken for _, taken in seconds) or 1.0
        spent = [Spent(str(event.key), event.count, taken, taken / total) for event, taken in seconds if taken > 0]
        return sorted(spent, key=lambda one: one.seconds, reverse=True)[:SHOWN]

    @property
    def stretch(self) -> str:
        """What part of the work was recorded, and is in `operations` and in the trace, in words."""
        return f"{self._stretch}; at most {UPDATES} rounds of any stage"

    @property
    def on_device(self) -> bool:
        """Whether a device did any of the recorded stretch; `operations` are its own then."""
        return bool(self._by_device())

    def listen(self, listener: Listener) -> Listener:
        """Return a listener that tells this one, and knows by it where an epoch ends."""

        def heard(step: Step) -> None:
            # A recording that another thread stops crashes the process.
            recorded = self._recorded and threading.get_ident() == self._thread
            if recorded and not self._warm and step.done < step.total:
                self._stop()
                self._record()
                self._warm = True
                self._stretch = "after the first epoch"
            elif recorded and self._warm:
                self._stretch = "one epoch, after the first"
                self._stop()
            listener(step)

        return heard

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of a block to a stage, and name it in the trace."""
        if threading.get_ident() != self._thread:
            yield  # torch records the thread it was told to alone
            return
        _wait_for_cuda()
        if self._recorded[name] == UPDATES:
            self._stop()
        begun, own = time.perf_counter(), _Open(name)
        self._open.append(own)
        if self._running:
            own.begin()
        try:
            yield
        finally:
            own.end()
            _wait_for_cuda()
            taken = time.perf_counter() - begun
            self._open.pop()
            self._seconds[name] += taken - own.within
            self._calls[name] += 1
            if self._open:
                self._open[-1].within += taken
            self._recorded[name] += 1

    def finish(self) -> None:
        """End the recording, and the count of seconds."""
        self._stop()
        self._total = time.perf_counter() - self._begun - self._overhead

    def write(self, trace: Path, *, overwrite: bool = False) -> None:
        """Write the recorded stretch as JSON, for Perfetto or Chrome's about:tracing."""
        with whole_file(trace, overwrite=overwrite) as draft:
            self._recording.export_chrome_trace(str(draft))
            # torch does not tell whether it reached the disk.
            if not draft.exists() or not draft.read_bytes().rstrip().endswith(b"}"):
                raise OutputError(f"{trace}: the trace could not be written as a whole; is there space on the disk?")

    def _events(self) -> list[FunctionEventAvg]:
        return [event for event in self._recording.key_averages() if event.key not in self._calls]

    def _by_device(self) -> list[FunctionEventAvg]:
        # Torch counts it twice: as what the device did, and to the credit of the operation that asked for it.
        done = (event for event in self._events() if event.device_type.name != "CPU")
        return [event for event in done if event.self_device_time_total > 0 and not event.is_user_annotation]

    def _record(self) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._recorded = Counter[str]()
        self._recording = Recording(activities=activities)
        with self._not_counted():
            self._recording.start()
        self._running = True
        for stage in self._open:
            stage.begin()

    def _stop(self) -> None:
        if self._running:
            for stage in reversed(self._open):
                stage.end()
            with self._not_counted():
                self._recording.stop()
            self._running = False

    @contextmanager
    def _not_counted(self) -> Iterator[None]:
        """Count the seconds of a block, which recording needs for itself, to no stage."""
        begun = time.perf_counter()
        yield
        taken = time.perf_counter() - begun
        self._overhead += taken
        if self._open:
            self._open[-1].within += taken


_taken: Profile | None = None
_NO_STAGE = nullcontext()


def stage(name: str) -> AbstractContextManager[None]:
    """Return a context that is a stage of the work in the profile that is being taken, if one is."""
    return _NO_STAGE if _taken is None else _taken.stage(name)


def each(name: str, things: Iterable[Thing]) -> Iterator[Thing]:
    """Yield things; making one is a stage."""
    iterator = iter(things)
    while True:
        with stage(name):
            try:
                thing = next(iterator)
            except StopIteration:
                return
        yield thing


@contextmanager
def take(trace: Path, *, overwrite: bool = False) -> Iterator[Profile]:
    """Yield a profile of the work in this block, and leave its trace at a path when the work ends well.

    OutputError before the work if there is something at the path that may not be replaced; ValueError if a profile is
    being taken already.
    """
    global _taken
    refuse_existing(trace, overwrite=overwrite)
    if trace.is_dir():
        raise OutputError(f"{trace} is a directory and the trace a file; choose another place")
    if _taken is not None:
        raise ValueError("a profile is being taken already")
    _taken = profile = Profile()
    try:
        yield profile
    finally:
        _taken = None
        profile.finish()
    profile.write(trace, overwrite=overwrite)


def _wait_for_cuda() -> None:
    """Wait until CUDA has done what it was told to, if it is in use; while it is recorded, it does nothing."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if in_use and not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()
