"""Threads that share the work do all of it, once, and leave torch as it was."""

import threading

import pytest
import torch
from tiny_shops import make_shop

from utgrec.decoding.parallel import in_threads


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_every_part_is_done_once_by_threads_that_compute_alone(three_threads):
    done, inside, barrier = [], set(), threading.Barrier(3, timeout=60)

    def work(part: int) -> None:
        if part < 3:
            barrier.wait()  # passes only if three work at the same time
        inside.add(torch.get_num_threads())
        done.append(part)

    in_threads(work, range(20), 3)
    assert sorted(done) == list(range(20))
    assert inside == {1}
    assert torch.get_num_threads() == 3


def test_one_thread_is_the_callers_own(three_threads):
    names = []
    in_threads(lambda _: names.append(threading.current_thread()), [1, 2], 1)
    in_threads(lambda _: names.append(threading.current_thread()), [1], 3)
    assert set(names) == {threading.current_thread()}
    assert torch.get_num_threads() == 3


def test_an_error_comes_out_and_threads_are_given_back(three_threads):
    def work(part: int) -> None:
        if part == 2:
            raise ValueError("broken part")

    with pytest.raises(ValueError, match="broken part"):
        in_threads(work, range(5), 2)
    assert torch.get_num_threads() == 3


def test_a_search_in_threads_finds_the_same(three_threads):
    shop = make_shop()
    ids, mask = shop.input_ids.repeat(8, 1), shop.mask.repeat(8, 1)
    skipped = [[user % 60, 3] for user in range(40)]
    search = shop.search(chunk=8)
    threaded = search.search(ids, mask, k=5, beam=7, exclude=skipped)
    torch.set_num_threads(1)
    alone = search.search(ids, mask, k=5, beam=7, exclude=skipped)
    assert torch.equal(threaded.items, alone.items)
    torch.testing.assert_close(threaded.scores, alone.scores, atol=1e-5, rtol=0)
    threaded.scores.exp_()  # results are ordinary tensors here too
