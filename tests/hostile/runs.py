"""Hostile run folders: configs, checkpoints, scores, masks and links."""

import json
import os
import shutil

import torch

from tests.hostile import CONTROL, SCRIPT, laughs, table
from tests.hostile.pictures import chunk, png

RUN = "{given}/run"
RESUME = ("fit", "--resume", RUN, "trainer.max_epochs=2", "data.root={data}")
VALIDATE = ("validate", "--checkpoint", f"{RUN}/checkpoints/best.ckpt", "data.root={data}")
REPORT = ("report", RUN, "data.root={data}")
PREDICT = ("predict", "{photo}", "--checkpoint", RUN, "--out", "out")


def _copied(change):
    def make(paths):
        shutil.copytree(paths.run, paths.given / "run")
        change(paths.given / "run", paths)

    return make


def _changed(name, change):
    """Return a function that writes a run with a changed JSON file or checkpoint."""

    def edit(run, paths):
        path = run / name
        if path.suffix == ".json":
            content = json.loads(path.read_text())
            change(content, paths)
            path.write_text(json.dumps(content))
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            change(content, paths)
            torch.save(content, path)

    return _copied(edit)


def _set(**values):
    return _changed("checkpoints/last.ckpt", lambda content, paths: content.update(values))


def _score(**values):
    return _changed("scores.json", lambda content, paths: content.update(values))


def _image(**values):
    return _changed("images.json", lambda content, paths: content[0].update(values))


def _text(name, text):
    return _copied(lambda run, paths: (run / name).write_text(text))


def _config(old, new):
    def edit(run, paths):
        path = run / "config.yaml"
        path.write_text(path.read_text().replace(old, new))

    return _copied(edit)


def _kept_above(content, paths):
    """Let each callback keep a file outside of the run, which it would remove later."""
    for state in content["callbacks"].values():
        if isinstance(state, dict) and "best_model_path" in state:
            path = f"{state['dirpath']}/../../../outside/victim.txt"
            keys = ("best_model_path", "kth_best_model_path", "last_model_path")
            state.update(dict.fromkeys(keys, path), kth_value=torch.tensor(-1.0))
            state["best_k_models"] = {path: torch.tensor(-1.0)}


def _link(name, target="OUTSIDE/victim.txt"):
    """Replace a path in the run with a link to a path outside of it."""

    def edit(run, paths):
        if (run / name).is_dir():
            shutil.rmtree(run / name)
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(paths.fill(target))

    return _copied(edit)


def _large_masks(run, paths):
    for mask in run.glob("masks/*"):
        mask.write_bytes(png((40000, 40000), kind=3, before=chunk(b"PLTE", bytes(9))))


def _pipes(run, paths):
    for name in ("scores.json", "metrics.csv", "checkpoints/best.ckpt"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)


STATES = {
    "epoch 10^30": _set(epoch=10**30),
    "loops that laugh": _set(loops={"fit_loop": laughs()}),
    "schedule of words": _set(lr_schedulers=[{"_step_count": "x", "lr_lambdas": [{"a": 1}]}]),
    "callbacks with paths above": _changed("checkpoints/last.ckpt", _kept_above),
}
REPORTED = {
    "deep scores": _text("scores.json", "[" * 1_000_000),
    "scores of script": _score(miou=SCRIPT),
    "details of script": _score(details={"boundary": SCRIPT, "bootstrap": 3}),
    "a checkpoint of control": _score(checkpoint=10**5 * CONTROL),
    "no images": _text("images.json", "[]"),
    "an image that leads out": _image(name="../../outside/secret"),
    "an image with NUL": _image(name="a\0b"),
    "an image name of 10 MB": _image(name="a" * 10_000_000),
    "masks of 40000 x 40000": _copied(_large_masks),
}
LINKS = {
    "the page while it is written": _link(".partial-report.html"),
    "metrics": _link("metrics.csv"),
    "masks": _link("masks", "OUTSIDE"),
    "a partial checkpoint": _link("checkpoints/.partial-last.ckpt"),
    "the config": _link("config.yaml"),
}
CONFIGS = {
    "a secret": _config("optimizer:", "optimizer: ${oc.env:AWS_SECRET_ACCESS_KEY}\nx:"),
    "a cache at /": _config("workers: 0", "workers: 0\n  cache: /"),
}

ARTEFACTS = [
    *table("run: state with", STATES, (RESUME,)),
    *table("run", REPORTED, (REPORT, RESUME)),
    *table("run: a link instead of", LINKS, (REPORT, RESUME, VALIDATE)),
    *table("run: a config with", CONFIGS, (VALIDATE, REPORT, RESUME)),
    *table("run", {"pipes": _copied(_pipes)}, (REPORT, VALIDATE, PREDICT, ("load", RUN))),
]
