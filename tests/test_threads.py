"""Work side by side: each piece on one thread, results in order."""

import time

import pytest
import torch

from recae.threads import side_by_side


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_are_in_the_order_of_the_things(threads):
    def work(number):
        time.sleep(0.002 * (5 - number % 5))
        return number**2

    assert side_by_side(work, range(20)) == [number**2 for number in range(20)]
    assert side_by_side(work, []) == []


def test_each_piece_has_one_thread_and_the_caller_keeps_theirs(threads):
    assert side_by_side(lambda _: torch.get_num_threads(), range(5)) == [1] * 5
    assert torch.get_num_threads() == threads
    assert side_by_side(lambda _: side_by_side(lambda _: torch.get_num_threads(), range(2)), range(2)) == [[1, 1]] * 2


def test_an_error_comes_out_as_it_is_and_the_caller_keeps_their_threads(threads):
    def work(number):
        if number == 3:
            raise MemoryError("no more")
        return number

    with pytest.raises(MemoryError, match="no more"):
        side_by_side(work, range(50))
    assert torch.get_num_threads() == threads


def test_no_bit_depends_on_how_many_threads_there_are():
    generator = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(128, 64, generator=generator), torch.randn(64, 1000, generator=generator)) for _ in range(3)]
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(side_by_side(lambda pair: pair[0] @ pair[1], pairs))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for others in found[1:] for one, other in zip(found[0], others, strict=True))
