"""The map over threads: in order, no further ahead than told, and over when its caller stops."""

import contextlib
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from emotion_jax.host.threads import Shared, map_ahead


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_results_come_in_order_and_few_are_taken_ahead(ahead):
    taken = 0

    def give():
        nonlocal taken
        for i in range(50):
            taken += 1
            yield i

    for i, result in enumerate(map_ahead(lambda x: x * x, give(), threads=3, ahead=ahead)):
        assert result() == i * i
        assert taken == min(50, i + 1 + ahead)
    assert i == 49


def test_no_items_no_results():
    assert list(map_ahead(str, [], threads=2, ahead=3)) == []


def test_what_one_item_raises_is_raised_for_it_alone():
    results = list(map_ahead(lambda x: 6 // x, [1, 0, 2], threads=2, ahead=9))
    assert (results[0](), results[2]()) == (6, 3)
    with pytest.raises(ZeroDivisionError):
        results[1]()


def test_threads_work_at_the_same_time():
    together = threading.Barrier(3)  # none passes before the others are there
    for result in map_ahead(lambda _: together.wait(60), range(3), threads=3, ahead=2):
        result()


def test_stopping_early_leaves_what_was_not_begun(monkeypatch):
    begun, started, go_on = [], threading.Event(), threading.Event()
    stop = ThreadPoolExecutor.shutdown

    def work(item):
        begun.append(item)
        started.set()
        go_on.wait(60)

    def shutdown(pool, wait=True, *, cancel_futures=False):
        stop(pool, wait=False, cancel_futures=cancel_futures)
        go_on.set()  # only now can the one thread look for another item
        stop(pool, wait=wait)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown)
    with contextlib.closing(map_ahead(work, range(100), threads=1, ahead=20)) as results:
        next(results)
        started.wait(60)
    assert begun == [0]


def test_threads_that_share_a_context_leave_the_process_as_it_was():
    before, inside = list(warnings.filters), threading.Barrier(2)
    shared, first_is_out = Shared(lambda: warnings.catch_warnings(action="ignore")), []

    def enter_first():
        with shared:
            inside.wait(10)
        first_is_out.append(list(warnings.filters))
        inside.wait(10)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(enter_first)
        with shared:
            inside.wait(10)
            inside.wait(10)
            assert warnings.filters[0][0] == "ignore" and first_is_out[0] != before
        assert list(warnings.filters) == before
        first.result()
    for _ in range(2):  # it can be entered again, and an error leaves it as well
        with pytest.raises(ZeroDivisionError), shared:
            assert list(warnings.filters) != before
            raise ZeroDivisionError
        assert list(warnings.filters) == before
