"""What earlier versions of hrseg wrote, each in tests/compat, is read by this one.

`scripts/maintenance/compat_corpus.py` writes the archive of the present version. Where a file
cannot be read any more, CHANGELOG.md says what to do with it, and its test leaves that version
out.
"""

import csv
import json
import shutil
import tarfile

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

import hrseg
from hrseg.checkpoints import metadata as facts
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.cli import main
from hrseg.config.loader import load_config, to_yaml
from hrseg.training.factory import build_data
from tests.paths import ROOT

ARCHIVES = sorted((ROOT / "tests" / "compat").glob("*.tar.xz"))
RUNS = ("minimal", "full", "stopped")


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name)
def corpus(request, tmp_path_factory):
    """The files of a version, in a folder that is empty again afterwards: they are large."""
    folder = tmp_path_factory.mktemp("corpus") / request.param.name.removesuffix(".tar.xz")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture(params=RUNS)
def run(corpus, request):
    """A run folder of that version."""
    if not (corpus / "runs" / request.param).is_dir():
        pytest.skip("that version's archive has no such run")
    return (corpus / "runs" / request.param / "latest").resolve()


def close(masks, others):
    """Whether masks are equal, but for what another processor rounds differently."""
    return np.mean(masks == others) >= 0.999


def validation_images(corpus):
    return sorted((corpus / "data" / "images" / "val").iterdir())


def test_this_version_has_an_archive_too():
    assert f"{hrseg.__version__}.tar.xz" in [path.name for path in ARCHIVES], (
        "scripts/maintenance/compat_corpus.py writes it"
    )


def test_every_config_loads_and_says_what_it_said(corpus, tmp_path):
    configs = sorted(corpus.glob("configs/*.yaml")) + sorted(corpus.glob("runs/*/*/config.yaml"))
    assert len(configs) > 20
    for path in configs:
        printed = to_yaml(load_config(path))
        again = tmp_path / "again.yaml"
        again.write_text(printed, encoding="utf-8")
        assert to_yaml(load_config(again)) == printed, path
        old, new = said(path), said(again)
        assert {key: value for key, value in old.items() if new.get(key) != value} == {}, path


def test_what_a_short_config_leaves_out_means_what_it_meant(corpus, run, tmp_path):
    place = [f"data.root={load_config(run / 'config.yaml').data.root}"]
    printed = tmp_path / "printed.yaml"
    printed.write_text(to_yaml(load_config(corpus / "configs" / f"{run.parent.name}.yaml", place)))
    old, new = said(run / "config.yaml"), said(printed)
    assert {key: value for key, value in old.items() if new.get(key) != value} == {}


def said(path):
    """A config as {dotted key: value}."""
    return dict(flat(OmegaConf.to_container(OmegaConf.load(path))))


def flat(node, key=""):
    """Yield (dotted key, value) of a config; a bare name stands for {name: ...}."""
    if isinstance(node, dict):
        for name, value in node.items():
            # To YAML a bare `on` is true; hrseg reads it as the word.
            yield from flat(value, f"{key}.{'on' if name is True else name}")
    elif isinstance(node, list) and key == ".losses":
        for index, value in enumerate(node):
            yield from flat({"name": value} if isinstance(value, str) else value, f"{key}[{index}]")
    elif key in (".model.backbone", ".model.head", ".optimizer", ".schedule"):
        yield f"{key}.name", node
    else:
        yield key, node


def test_a_run_predicts_the_masks_that_it_recorded(corpus, run):
    predictor = hrseg.load(run)
    for image in validation_images(corpus):
        recorded = np.asarray(Image.open(run / "masks" / f"{image.stem}.png"))
        assert len(np.unique(recorded)) > 2  # else nothing is proven
        assert close(predictor.predict(image).mask, recorded)


@pytest.mark.parametrize("name", ["hrseg.safetensors", "exported.onnx"])
def test_files_that_a_run_was_turned_into_predict_the_same(corpus, name):
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    predictor = hrseg.load(corpus / "weights" / name)
    for image in validation_images(corpus):
        recorded = corpus / "runs" / "minimal" / "latest" / "masks" / f"{image.stem}.png"
        assert close(predictor.predict(image).mask, np.asarray(Image.open(recorded)))


def test_weights_under_the_authors_names_are_those_of_the_run(corpus):
    predictor = hrseg.load(corpus / "runs" / "minimal" / "latest")
    model = hrseg.create_model(**predictor.model.architecture)
    hrseg.load_weights(model, corpus / "weights" / "official.pth")
    for name, tensor in predictor.model.state_dict().items():
        assert tensor.equal(model.state_dict()[name]), name


def test_validate_gives_the_recorded_scores(corpus, run, tmp_path):
    own = shutil.copytree(run, tmp_path / "run")
    checkpoint = next(iter(sorted(own.glob("checkpoints/*.ckpt"))))
    command = ["validate", "--checkpoint", str(checkpoint), f"data.root={corpus / 'data'}"]
    assert main(command) == 0
    (scored,) = own.glob("validate/*/scores.json")
    before, after = (json.loads(path.read_text()) for path in (run / "scores.json", scored))
    moved = np.abs(np.subtract(before["confusion_matrix"], after["confusion_matrix"])).sum()
    assert moved <= 0.002 * np.sum(before["confusion_matrix"])
    assert after["miou"] == pytest.approx(before["miou"], abs=1e-3)
    # What is new in a later version is not here yet; the rest is told by the same names.
    assert set(before) - {"epoch", "step"} <= set(after)
    assert before["protocol"].items() <= after["protocol"].items()


def test_a_training_goes_on_from_its_last_checkpoint(corpus, run, tmp_path):
    own = shutil.copytree(run, tmp_path / run.parent.name / run.name)
    before = read_checkpoint(own / "checkpoints" / "last.ckpt")
    place = [f"data.root={corpus / 'data'}", f"runs={tmp_path}"]
    assert main(["fit", "--resume", str(own), *place, "trainer.max_epochs=2"]) == 0
    after = read_checkpoint(own / "checkpoints" / "last.ckpt")
    # Two steps in an epoch; `stopped` may have been saved amid the second.
    assert after["global_step"] == 4 > before["global_step"] > 0
    with (own / "metrics.csv").open() as file:
        assert {row["epoch"] for row in csv.DictReader(file)} == {"0", "1"}
    moments = [c["optimizer_states"][0]["state"].values() for c in (before, after)]
    assert [set(moment) for moment in moments[0]] == [set(moment) for moment in moments[1]]


def test_report_is_made_of_a_run(corpus, run, tmp_path):
    own = shutil.copytree(run, tmp_path / "run")
    assert main(["report", str(own), f"data.root={corpus / 'data'}"]) == 0
    miou = json.loads((own / "scores.json").read_text())["miou"]
    assert f"{100 * miou:.1f}" in (own / "report.html").read_text(encoding="utf-8")


def test_a_cache_is_used_as_it_is(corpus):
    place = [f"data.root={corpus / 'data'}", "data.workers=0"]
    plain = build_data(load_config(corpus / "configs" / "minimal.yaml", place))
    cache = f"data.cache={corpus / 'cache'}"
    cached = build_data(load_config(corpus / "configs" / "minimal.yaml", [*place, cache]))
    cached.check()
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            for ours, theirs in zip(
                plain.dataset(split).read(index), cached.dataset(split).read(index), strict=True
            ):
                assert np.array_equal(ours, theirs)


def test_a_manifest_is_compared_with_the_files(corpus, tmp_path, capsys):
    data = shutil.copytree(corpus / "data", tmp_path / "data")
    command = ["data", "check", "--config", str(corpus / "configs" / "minimal.yaml"), "--hash"]
    assert main([*command, f"data.root={data}"]) == 0
    image = next(iter(sorted((data / "images" / "val").iterdir())))
    shutil.copy(next(iter(sorted((data / "images" / "train").iterdir()))), image)
    assert main([*command, f"data.root={data}"]) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "its bytes are not those in the manifest" in said and image.name in said


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "hrseg.safetensors", "exported.onnx"])
def test_a_file_of_a_later_version_is_refused_by_name(corpus, monkeypatch, capsys, name):
    # To a hrseg whose format is 0 the files of today are those of a later one.
    monkeypatch.setattr(facts, "FORMAT", 0)
    home = corpus / "runs" / "minimal" / "latest" if "/" in name else corpus / "weights"
    commands = [["weights", "inspect"]]
    if name.endswith(".ckpt"):
        data = [f"data.root={corpus / 'data'}"]
        commands += [["validate", *data, "--checkpoint"], ["export"]]
    for command in commands:
        assert main([*command, str(home / name)]) == 2
        error = capsys.readouterr().err
        assert f"was written by hrseg {corpus.name}, " in error and "Upgrade" in error
        assert len(error.splitlines()) <= 4


def test_a_run_of_a_later_version_is_not_gone_on_in(corpus, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(facts, "FORMAT", 0)
    own = shutil.copytree((corpus / "runs" / "full" / "latest").resolve(), tmp_path / "run")
    before = {path: path.read_bytes() for path in own.rglob("checkpoints/*")}
    command = ["fit", "--resume", str(own), f"data.root={corpus / 'data'}", f"runs={tmp_path}"]
    assert main([*command, "trainer.max_epochs=2"]) == 2
    assert "was written by hrseg" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in own.rglob("checkpoints/*")} == before


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands write below the folder that they are given from."""
    monkeypatch.chdir(tmp_path)
