"""Prefetch: order, bounded queue, errors."""

import pytest

from hrseg.inference.prefetch import prefetch


def test_items_are_in_order_and_at_most_depth_are_prefetched():
    fetched = []

    def items():
        for number in range(10):
            fetched.append(number)
            yield number

    received = []
    for item in prefetch(items(), depth=3):
        received.append(item)
        assert len(fetched) <= item + 4
    assert received == list(range(10))


def test_an_error_of_the_source_is_raised_after_earlier_items():
    def items():
        yield 1
        raise KeyError("broken")

    iterator = prefetch(items(), depth=2)
    assert next(iterator) == 1
    with pytest.raises(KeyError, match="broken"):
        next(iterator)
