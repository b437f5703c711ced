"""Threads beside the model: results in order, bounded, no lost error."""

import pytest

from hrseg.inference.prefetch import ahead


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
