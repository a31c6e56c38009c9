"""Pieces of work side by side, each on a thread of its own."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Thing], Result], things: Iterable[Thing]) -> list[Result]:
    """Return work's result for each thing, in their order, from as many threads as torch has here.

    Torch itself would spread each small product over all of them, and they would wait for each other: on a machine
    that has other work to do, for ten times as long as the product takes. In here it keeps to the one thread it was
    called on, so that no bit of a result depends on how many there are. The work must not write to what others read.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(thing) for thing in things]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                return list(pool.map(work, things))
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        # What a thread sets for itself is also what threads to come begin with.
        torch.set_num_threads(threads)
