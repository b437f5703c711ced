"""Fault injection: one module per kind of fault, with the helpers that several of them share.

By default each test injects a few faults; `pytest -m faults` injects the full counts, in half an
hour on two cores. A test collects a line for each fault that broke the promise: which fault, what
was expected, what came instead. It fails with these lines.
"""

import pytest


def counts(few: int, full: int) -> pytest.MarkDecorator:
    """Run a test with a `count` of faults: a few by default, the full count with `-m faults`."""
    return pytest.mark.parametrize("count", [few, pytest.param(full, marks=pytest.mark.faults)])
