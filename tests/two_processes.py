"""`hrseg` as one of several processes, which writes a digest of its evaluated weights."""

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from hrseg.cli import main
from hrseg.training.task import SegmentationTask

_begin = SegmentationTask.on_validation_epoch_start


def _write_digest(self: Any) -> None:
    _begin(self)
    state = torch.cat([tensor.double().flatten() for tensor in self.model.state_dict().values()])
    digest = hashlib.sha256(state.numpy().tobytes()).hexdigest()
    folder = Path(os.environ["DIGESTS"])
    (folder / f"{self.global_rank}").write_text(f"{self.trainer.default_root_dir} {digest}")


if __name__ == "__main__":
    # The processes name the run folder at different seconds.
    time.sleep(1.2 * int(os.environ.get("LOCAL_RANK", "0")))
    SegmentationTask.on_validation_epoch_start = _write_digest
    sys.exit(main(sys.argv[1:]))
