"""Fault injection tests, one module per kind of fault.

By default each test injects a few faults. `pytest -m faults` injects the full counts, which takes
40 minutes on two cores.
"""

import functools

import pytest


def inject(few, full):
    """Run a test with a `count` of faults: `few` by default, `full` with `-m faults`.

    The test yields once per fault: None, or a message with the fault, the expectation and the
    result.
    """

    def decorate(test):
        @functools.wraps(test)
        def run(**fixtures):
            messages = [message for message in test(**fixtures) if message]
            assert not messages, "\n".join(messages)

        counts = [few, pytest.param(full, marks=pytest.mark.faults)]
        return pytest.mark.parametrize("count", counts)(run)

    return decorate
