"""Folders with the files of an evaluation."""

import torch

from hrseg.config.loader import load_config, to_yaml
from hrseg.evaluation.results import write_records
from hrseg.metrics.confusion import summarize
from hrseg.utils.files import write_json

PALETTE = [[70, 130, 180], [128, 64, 128], [220, 20, 60]]
PROTOCOL = {"name": "plain", "scales": [1.0], "flip": False, "window": []}


def write_evaluation(folder, records, names, root="nowhere", **extra):
    """Write the files of an evaluation, with the scores of the records; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(record.matrix(len(names)) for record in records)
    scores = {**summarize(torch.from_numpy(total), names), "protocol": PROTOCOL, **extra}
    scores["checkpoint"] = str(folder / "checkpoints/best.ckpt")
    write_json(folder / "scores.json", scores)
    write_records(folder, records)
    config = load_config("camvid_w18_small", [f"data.root={root}"])
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder
