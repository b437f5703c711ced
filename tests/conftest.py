"""One thread per worker: the suite runs on all cores through pytest-xdist."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test that asks for two threads would wait in a busy loop for a core that another worker has.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytest
import torch
from rich import reconfigure

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def console():
    """Rich's console as new: one that a test left amid a live display prints nothing any more."""
    reconfigure()
