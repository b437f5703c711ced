"""Input folders of the tests: the repository, golden figures and CamVid."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
CAMVID = Path(os.environ.get("HRSEG_CAMVID", ROOT.parent / "shared" / "camvid"))
