"""The quick version of each kind of fault; the long one is scripts/maintenance/torture.py."""

import pytest

from tests.faults import Tally
from tests.faults.kinds import KINDS


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_lost(name, tmp_path):
    kind = KINDS[name]
    tally = kind.inject(kind.quick, tmp_path, 0)
    assert tally.injected >= kind.quick
    assert not tally.lost


def test_a_tally_counts_what_was_lost():
    tally = Tally()
    tally.record(None)
    tally.record("best.ckpt is gone")
    assert (tally.injected, tally.survived, tally.lost) == (2, 1, ["best.ckpt is gone"])
