"""Work on several things at once, on the threads that this machine has, with the results in the order of the things."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")

WORKERS = min(4, os.cpu_count() or 1)
"""More would wait for whoever reads and writes, and each holds a piece of the work in memory."""


def in_order(work: Callable[[Thing], Result], things: Iterable[Thing], workers: int = WORKERS) -> Iterator[Result]:
    """Yield work's result for each thing, in their order; no more things are taken than there are workers, and one.

    An error of the work, or of whoever makes the things, comes out here; what has not begun by then never does.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
