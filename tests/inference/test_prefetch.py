"""Work beside the model: in order, bounded, and no error is lost."""

import threading
import time

import pytest

from hrseg.inference.prefetch import Behind, ahead, map_ahead


def test_items_come_in_order_and_at_most_so_many_are_fetched_ahead():
    fetched = []

    def items():
        for number in range(10):
            fetched.append(number)
            yield number

    seen = []
    for item in ahead(items(), depth=3):
        seen.append(item)
        assert len(fetched) <= item + 4
    assert seen == list(range(10))


def test_an_error_of_the_source_arrives_where_it_belongs():
    def items():
        yield 1
        raise KeyError("broken")

    iterator = ahead(items(), depth=2)
    assert next(iterator) == 1
    with pytest.raises(KeyError, match="broken"):
        next(iterator)


def test_results_come_with_their_items_in_order_whatever_takes_longest():
    def slow_at_first(number):
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    pairs = list(map_ahead(slow_at_first, range(8), workers=2, depth=3))
    assert [item for item, _ in pairs] == list(range(8))
    assert [result.result() for _, result in pairs] == [n * n for n in range(8)]


def test_calls_behind_are_bounded_and_finished_at_the_end():
    under_way, most, done, lock = 0, 0, [], threading.Lock()

    def call(number):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)
        with lock:
            under_way -= 1
        done.append(number)

    with Behind(workers=2, depth=3) as behind:
        for number in range(12):
            behind.submit(call, number)
            assert len(behind.waiting) <= 3
    assert sorted(done) == list(range(12))
    assert most <= 2


def test_an_error_of_a_call_behind_is_raised():
    def fail():
        raise OSError("full")

    with pytest.raises(OSError, match="full"), Behind(workers=1, depth=2) as behind:
        behind.submit(fail)
