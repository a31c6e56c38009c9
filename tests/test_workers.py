"""Results come in the order of the things, a few at a time, and errors come out."""

import threading
import time

import pytest

from recae.workers import in_order


def test_results_keep_their_order_and_few_things_are_taken_ahead():
    taken = []

    def things():
        for n in range(20):
            taken.append(n)
            yield n

    def work(n):
        time.sleep(0.002 * (n % 3 == 0))
        return n * n

    for done, result in enumerate(in_order(work, things(), workers=3)):
        assert result == done * done
        assert len(taken) <= done + 4


def test_nothing_makes_nothing():
    assert list(in_order(str, [])) == []


def test_an_error_of_the_work_or_of_the_things_comes_out_and_no_thread_stays():
    def broken():
        yield 1
        raise OSError("broken")

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 // n, [2, 1, 0, 1], workers=2))
    with pytest.raises(OSError, match="broken"):
        list(in_order(str, broken(), workers=2))
    for _ in in_order(str, range(10), workers=2):
        break
    assert threading.active_count() == before
