"""Threads beside the model: results in order, bounded, no lost error."""

import time

import pytest

from hrseg.inference.prefetch import ahead, map_ahead


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


def test_an_error_of_the_source_is_raised_after_the_items_before_it():
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
    assert [(item, result.result()) for item, result in pairs] == [(n, n * n) for n in range(8)]
