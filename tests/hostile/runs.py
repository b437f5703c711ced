"""Run folders of strangers: config, checkpoints, scores, masks, links."""

import json
import os
import shutil

import torch

from tests.hostile import CONTROL, MARKUP, SCRIPT, Artefact
from tests.hostile.pictures import chunk, png
from tests.hostile.tensors import laughs

RUN = "{given}/run"
RESUME = ("fit", "--resume", RUN, "trainer.max_epochs=2", "data.root={data}")
VALIDATE = ("validate", "--checkpoint", f"{RUN}/checkpoints/best.ckpt", "data.root={data}")
REPORT = ("report", RUN, "data.root={data}")
LOAD = ("load", RUN)
PREDICT = ("predict", "{photo}", "--checkpoint", RUN, "--out", "out")


def copied(change):
    def make(place):
        shutil.copytree(place.run, place.given / "run")
        change(place.given / "run", place)

    return make


def _state(change):
    """A run whose last.ckpt was changed."""

    def edit(run, place):
        path = run / "checkpoints/last.ckpt"
        content = torch.load(path, map_location="cpu", weights_only=True)
        change(content, place)
        torch.save(content, path)

    return copied(edit)


def _set(key, value):
    return _state(lambda content, place: content.__setitem__(key, value))


def _remove(key):
    return _state(lambda content, place: content.pop(key, None))


def _callbacks(content, place):
    """Every file that a callback keeps lies outside, where Lightning would remove it."""
    victim = str(place.outside / "victim.txt")
    for state in content["callbacks"].values():
        if isinstance(state, dict) and "best_model_path" in state:
            state.update(best_model_path=victim, kth_best_model_path=victim, last_model_path=victim)
            state["best_k_models"] = {victim: torch.tensor(-1.0)}
            state["kth_value"] = torch.tensor(-1.0)


def _above(content, place):
    for state in content["callbacks"].values():
        if isinstance(state, dict) and "dirpath" in state:
            inner = f"{state['dirpath']}/../../../outside/victim.txt"
            state.update(best_model_path=inner, kth_best_model_path=inner)
            state["best_k_models"] = {inner: torch.tensor(-1.0)}


def _json(name, change):
    def edit(run, place):
        content = json.loads((run / name).read_text())
        changed = change(content)
        text = json.dumps(content if changed is None else changed)
        (run / name).write_text(text)

    return copied(edit)


def _raw(name, text):
    def edit(run, place):
        path = run / name
        path.unlink(missing_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return copied(edit)


def _rename(name):
    """An image of another name, where masks and pictures belong to it."""

    def change(records):
        records[0]["name"] = name

    return _json("images.json", change)


def _class(name):
    return _json("scores.json", lambda scores: scores["classes"][0].__setitem__("name", name))


def _score(key, value):
    return _json("scores.json", lambda scores: scores.__setitem__(key, value))


def _line(old, new):
    def edit(run, place):
        path = run / "config.yaml"
        text = path.read_text()
        assert old in text, old
        path.write_text(text.replace(old, new.replace("OUTSIDE", str(place.outside))))

    return copied(edit)


def _link(name, target):
    """What hrseg would write leads out of the run."""

    def edit(run, place):
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target.replace("OUTSIDE", str(place.outside)))

    return copied(edit)


def _mask(data):
    def edit(run, place):
        for mask in (run / "masks").iterdir():
            mask.write_bytes(data)

    return copied(edit)


def _pipes(run, place):
    for name in ("scores.json", "metrics.csv", "checkpoints/best.ckpt"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)


def _moved(name):
    def make(place):
        copied(lambda run, place: None)(place)
        os.rename(place.given / "run", os.path.join(place.given, name))

    return make


STATES = {
    "epoch of words": _set("epoch", "x"),
    "epoch 10^30": _set("epoch", 10**30),
    "epoch -5": _set("epoch", -5),
    "step of words": _set("global_step", "x"),
    "loops of words": _set("loops", "os.system"),
    "loops of lists": _set("loops", {"fit_loop": [1], "validate_loop": None}),
    "loops that laugh": _set("loops", {"fit_loop": laughs()}),
    "no loops": _remove("loops"),
    "no optimizer": _remove("optimizer_states"),
    "optimizer of words": _set("optimizer_states", ["os.system"]),
    "optimizer that laughs": _set(
        "optimizer_states", [{"state": {0: laughs()}, "param_groups": []}]),
    "schedule of words": _set("lr_schedulers", [{"_step_count": "x", "lr_lambdas": [{"a": 1}]}]),
    "callbacks of words": _set("callbacks", {"ImageScores": "x", "RunCheckpoint": 3}),
    "callbacks of paths outside": _state(_callbacks),
    "callbacks of paths above": _state(_above),
    "version of words": _set("pytorch-lightning_version", CONTROL),
    "version 0.0.1": _set("pytorch-lightning_version", "0.0.1"),
    "no version": _remove("pytorch-lightning_version"),
    "hyperparameters of a class": _state(lambda content, place: content.update(
        hyper_parameters={"_class_path": "os.system", "_instantiator": "os.system"},
        hparams_name="kwargs", datamodule_hyper_parameters={"_class_path": "os.system"})),
    "tensor for a number": _set("epoch", torch.zeros(5)),
}  # fmt: skip
SCORES = {
    "no JSON": _raw("scores.json", "{"),
    "deep": _raw("scores.json", "[" * 1_000_000),
    "a list": _raw("scores.json", "[]"),
    "a huge number": _raw("scores.json", '{"miou": ' + "9" * 10_000 + "}"),
    "NaN": _score("miou", float("nan")),
    "words": _score("miou", SCRIPT),
    "classes of words": _score("classes", "x"),
    "no classes": _score("classes", []),
    "a matrix of words": _score("confusion_matrix", [["x"]]),
    "a matrix of another size": _score("confusion_matrix", [[1]]),
    "a protocol of words": _score("protocol", "x"),
    "a protocol with scales of words": _score("protocol", {"scales": ["x"]}),
    "details of words": _score("details", {"boundary": SCRIPT, "bootstrap": 3}),
    "scales of words": _score("per_scale", {SCRIPT: {"miou": SCRIPT, "classes": 3}}),
    "a checkpoint of control": _score("checkpoint", 10**5 * CONTROL),
    "a class of markup": _class(MARKUP),
    "a class of script": _class(SCRIPT),
    "a class of words": _class(3),
}
IMAGES = {
    "no JSON": _raw("images.json", "{"),
    "a dict": _raw("images.json", "{}"),
    "nothing": _raw("images.json", "[]"),
    "a name that leads out": _rename("../../outside/secret"),
    "an absolute name": _rename("/etc/passwd"),
    "a name of control": _rename(CONTROL),
    "a name of script": _rename(SCRIPT),
    "a name with NUL": _rename("a\0b"),
    "a name of a number": _rename(3),
    "a name of 10 MB": _rename("a" * 10_000_000),
    "counts of other classes": _json(
        "images.json", lambda rows: rows[0].__setitem__("counts", [[200, 300, 5]])),
    "counts below 0": _json(
        "images.json", lambda rows: rows[0].__setitem__("counts", [[-1, -2, -5]])),
    "counts of 10^30": _json(
        "images.json", lambda rows: rows[0].__setitem__("counts", [[0, 0, 10**30]])),
    "counts of words": _json("images.json", lambda rows: rows[0].__setitem__("counts", "abc")),
    "sizes of words": _json("images.json", lambda rows: rows[0].__setitem__("size", SCRIPT)),
}  # fmt: skip
LINKS = {
    "the page": _link("report.html", "OUTSIDE/victim.txt"),
    "the page while it is written": _link(".partial-report.html", "OUTSIDE/victim.txt"),
    "scores while they are written": _link(".partial-scores.json", "OUTSIDE/victim.txt"),
    "metrics": _link("metrics.csv", "OUTSIDE/victim.txt"),
    "pictures": _link("predictions", "OUTSIDE"),
    "masks": _link("masks", "OUTSIDE"),
    "masks that wait": _link(".masks", "OUTSIDE"),
    "validations": _link("validate", "OUTSIDE"),
    "checkpoints": _link("exported", "OUTSIDE"),
    "a checkpoint while it is written": _link(
        "checkpoints/.partial-last.ckpt", "OUTSIDE/victim.txt"
    ),
    "the config": _link("config.yaml", "OUTSIDE/victim.txt"),
    "the images": _link("images.json", "OUTSIDE/secret.txt"),
}
CONFIGS = {
    "a secret": _line("optimizer:", "optimizer: ${oc.env:AWS_SECRET_ACCESS_KEY}\nx:"),
    "a script as a name": _line("name: tiny", "name: '<img src=x onerror=alert(1)>'"),
    "markup as a name": _line("name: tiny", "name: '[red]a[;nothing][link=x]'"),
    "control as a name": _line("name: tiny", 'name: "\\e[2J"'),
    "another class": _line("backbone: hrnet_w18_small_v1", "backbone: os.system"),
    "a root of /": _line("workers: 0", "workers: 0\n  cache: /"),
}
METRICS = {
    "a long cell": "step,a\n1," + "a" * 10**6,
    "nothing": b"\xff\0\n\n",
}
HUGE = png((40000, 40000), claimed=True, kind=3, before=chunk(b"PLTE", bytes(9)))

ARTEFACTS = [
    *(Artefact(f"run: state with {key}", make, (RESUME,)) for key, make in STATES.items()),
    *(Artefact(f"run: scores of {key}", make, (REPORT,)) for key, make in SCORES.items()),
    *(Artefact(f"run: images of {key}", make, (REPORT,)) for key, make in IMAGES.items()),
    *(Artefact(f"run: a link in place of {key}", make, (REPORT, RESUME, VALIDATE))
      for key, make in LINKS.items()),
    *(Artefact(f"run: a config with {key}", make, (VALIDATE, REPORT, RESUME))
      for key, make in CONFIGS.items()),
    *(Artefact(f"run: metrics of {key}", _raw("metrics.csv", text), (REPORT, RESUME))
      for key, text in METRICS.items()),
    Artefact("run: masks of 40000 x 40000", _mask(HUGE), (REPORT,)),
    Artefact("run: masks of text", _mask(SCRIPT.encode()), (REPORT,)),
    Artefact("run: pipes", copied(_pipes), (REPORT, VALIDATE, PREDICT, LOAD)),
    Artefact("run: a folder of control", _moved(f"{CONTROL}x"), (
        ("report", f"{{given}}/{CONTROL}x", "data.root={data}"),
        ("predict", "{photo}", "--checkpoint", f"{{given}}/{CONTROL}x", "--out", "out"))),
    Artefact("run: a folder of markup", _moved("[;red][bold]x[]"), (
        ("validate", "--checkpoint", "{given}/[;red][bold]x[]/checkpoints/best.ckpt",
         "data.root={data}"),)),
]  # fmt: skip
