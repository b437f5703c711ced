"""One thread per worker: the suite runs on all cores through pytest-xdist."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test that asks for two threads would wait in a busy loop for a core that another worker has.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import torch

torch.set_num_threads(1)
