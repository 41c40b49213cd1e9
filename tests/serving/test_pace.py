"""How long a line takes is learnt from the searches before."""

import pytest

from utgrec.serving.pace import Pace


def test_before_anything_is_known_nothing_is_claimed():
    assert Pace().batch(5) == 0.0
    assert Pace().line(500, 64) == 0.0


def test_a_line_by_hand():
    pace = Pace()
    for size in (1, 10, 4, 64, 2, 30):
        pace.note(size, 0.02 + 0.003 * size)
    assert pace.batch(20) == pytest.approx(0.02 + 0.06)
    assert pace.line(130, 64) == pytest.approx(2 * (0.02 + 0.192) + 0.02 + 0.006)
    assert pace.line(0, 64) == 0.0


def test_from_equal_batches_it_takes_all_batches_to_be_equal():
    pace = Pace()
    for _ in range(5):
        pace.note(8, 0.4)
    assert pace.batch(8) == pace.batch(64) == pytest.approx(0.4)
    assert pace.batch(1) == pytest.approx(0.4)


def test_it_learns_that_things_have_changed():
    pace = Pace()
    for size in (1, 2, 3, 4) * 5:
        pace.note(size, 0.01 * size)
    for size in (1, 2, 3, 4) * 10:
        pace.note(size, 0.1 * size)
    assert pace.batch(4) == pytest.approx(0.4, rel=0.05)


def test_noise_gives_no_nonsense():
    pace = Pace()
    for size, seconds in ((1, 0.5), (64, 0.1), (3, 0.4), (60, 0.1)):
        pace.note(size, seconds)  # the larger, the quicker
    assert 0.1 < pace.batch(64) == pace.batch(30) < 0.5
    for size, seconds in ((10, 0.0), (12, 3.0)):
        pace.note(size, seconds)
    assert pace.batch(1) > 0
    assert pace.batch(64) <= 64 * pace.batch(1)


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1), (1.2, 2), (500.0, 60)])
def test_when_to_try_again(seconds, expected):
    assert Pace.retry_after(seconds, 60) == expected
