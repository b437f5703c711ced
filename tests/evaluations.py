"""Folders as an evaluation leaves them, written by hand."""

import torch

from hrseg.config.loader import load_config, to_yaml
from hrseg.evaluation.results import write_records
from hrseg.metrics.confusion import summarize
from hrseg.utils.files import write_json

PALETTE = [[70, 130, 180], [128, 64, 128], [220, 20, 60]]
PROTOCOL = {"name": "plain", "scales": [1.0], "flip": False, "window": []}


def write_evaluation(folder, records, names, root="nowhere", **extra):
    """Write what an evaluation leaves; its scores are those of the records."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(seen.matrix(len(names)) for seen in records)
    scores = {**summarize(torch.from_numpy(total), names), "protocol": PROTOCOL, **extra}
    scores["checkpoint"] = str(folder / "checkpoints/best.ckpt")
    write_json(folder / "scores.json", scores)
    write_records(folder, records)
    config = load_config("camvid_w18_small", [f"data.root={root}"])
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder
