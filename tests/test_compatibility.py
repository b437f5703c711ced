"""Backward compatibility: this version reads the files of earlier versions in tests/compat.

`scripts/maintenance/compat_corpus.py` writes the archive of the current version. If a file becomes
unreadable, CHANGELOG.md describes the fix, and the test excludes the version of the file.
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
from hrseg.checkpoints import metadata
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.cli import main
from hrseg.config.loader import load_config, to_yaml
from hrseg.training.factory import build_data
from tests.paths import ROOT

ARCHIVES = sorted((ROOT / "tests" / "compat").glob("*.tar.xz"))


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name)
def corpus(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / request.param.name.removesuffix(".tar.xz")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture
def data(corpus):
    return f"data.root={corpus / 'data'}"


@pytest.fixture(params=["minimal", "full", "stopped"])
def run(corpus, request):
    """A run folder of the archive."""
    if not (corpus / "runs" / request.param).is_dir():
        pytest.skip("the archive has no such run")
    return (corpus / "runs" / request.param / "latest").resolve()


@pytest.fixture
def own(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(run, tmp_path / run.parent.name / run.name)


def assert_predicts(predictor, corpus, masks):
    """Compare masks, with a tolerance for the rounding of other processors."""
    for image in sorted((corpus / "data" / "images" / "val").iterdir()):
        recorded = np.asarray(Image.open(masks / f"{image.stem}.png"))
        assert len(np.unique(recorded)) > 2
        assert np.mean(predictor.predict(image).mask == recorded) >= 0.999


def test_this_version_has_an_archive():
    assert f"{hrseg.__version__}.tar.xz" in [path.name for path in ARCHIVES]


def test_every_config_loads_with_the_same_values(corpus, tmp_path):
    configs = sorted(corpus.glob("configs/*.yaml")) + sorted(corpus.glob("runs/*/*/config.yaml"))
    assert len(configs) > 20
    for path in configs:
        printed = to_yaml(load_config(path))
        copy = tmp_path / "copy.yaml"
        copy.write_text(printed, encoding="utf-8")
        assert to_yaml(load_config(copy)) == printed, path
        assert flat(path).items() <= flat(copy).items(), path


def test_defaults_of_a_short_config_are_the_same(corpus, run, tmp_path):
    root = f"data.root={load_config(run / 'config.yaml').data.root}"
    short, printed = corpus / "configs" / f"{run.parent.name}.yaml", tmp_path / "printed.yaml"
    printed.write_text(to_yaml(load_config(short, [root])))
    assert flat(run / "config.yaml").items() <= flat(printed).items()


def flat(path):
    return dict(leaves(OmegaConf.to_container(OmegaConf.load(path))))


def leaves(node, key=""):
    """Yield (dotted key, value) of a config; a bare name equals {name: ...}."""
    if isinstance(node, dict):
        for name, value in node.items():
            # YAML 1.1 reads the key `on` as true; hrseg reads it as text.
            yield from leaves(value, f"{key}.{'on' if name is True else name}")
    elif isinstance(node, list) and key == ".losses":
        for i, value in enumerate(node):
            yield from leaves({"name": value} if isinstance(value, str) else value, f"{key}[{i}]")
    else:
        named = key in (".model.backbone", ".model.head", ".optimizer", ".schedule")
        yield f"{key}.name" if named else key, node


def test_a_run_predicts_its_stored_masks(corpus, run):
    assert_predicts(hrseg.load(run), corpus, run / "masks")


@pytest.mark.parametrize("name", ["hrseg.safetensors", "exported.onnx"])
def test_converted_and_exported_files_predict_the_stored_masks(corpus, name):
    pytest.importorskip("onnxruntime")
    masks = corpus / "runs" / "minimal" / "latest" / "masks"
    assert_predicts(hrseg.load(corpus / "weights" / name), corpus, masks)


def test_weights_with_the_authors_names_equal_those_of_the_run(corpus):
    predictor = hrseg.load(corpus / "runs" / "minimal" / "latest")
    model = hrseg.create_model(**predictor.model.architecture)
    hrseg.load_weights(model, corpus / "weights" / "official.pth")
    for name, tensor in predictor.model.state_dict().items():
        assert tensor.equal(model.state_dict()[name]), name


def test_validate_gives_the_stored_scores(own, data):
    checkpoint = min(own.glob("checkpoints/*.ckpt"))
    assert main(["validate", "--checkpoint", str(checkpoint), data]) == 0
    (scored,) = own.glob("validate/*/scores.json")
    before, after = (json.loads(path.read_text()) for path in (own / "scores.json", scored))
    changed = np.abs(np.subtract(before["confusion_matrix"], after["confusion_matrix"])).sum()
    assert changed <= 0.002 * np.sum(before["confusion_matrix"])
    assert after["miou"] == pytest.approx(before["miou"], abs=1e-3)
    assert set(before) - {"epoch", "step"} <= set(after)
    assert before["protocol"].items() <= after["protocol"].items()


def test_a_training_resumes_from_its_last_checkpoint(own, data):
    last = own / "checkpoints" / "last.ckpt"
    before = read_checkpoint(last)
    assert main(["fit", "--resume", str(own), data, "runs=.", "trainer.max_epochs=2"]) == 0
    after = read_checkpoint(last)
    # An epoch has two steps; `stopped` may have been saved during the second.
    assert after["global_step"] == 4 > before["global_step"] > 0
    with (own / "metrics.csv").open() as file:
        assert {row["epoch"] for row in csv.DictReader(file)} == {"0", "1"}
    moments = [c["optimizer_states"][0]["state"].values() for c in (before, after)]
    assert [set(moment) for moment in moments[0]] == [set(moment) for moment in moments[1]]


def test_report_writes_the_report_of_a_run(own, data):
    assert main(["report", str(own), data]) == 0
    miou = json.loads((own / "scores.json").read_text())["miou"]
    assert f"{100 * miou:.1f}" in (own / "report.html").read_text(encoding="utf-8")


def test_a_cache_is_read_without_an_update(corpus, data):
    pairs = [data, "data.workers=0"]
    plain = build_data(load_config(corpus / "configs" / "minimal.yaml", pairs))
    pairs.append(f"data.cache={corpus / 'cache'}")
    cached = build_data(load_config(corpus / "configs" / "minimal.yaml", pairs))
    cached.check()
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            files = [module.dataset(split).read(index) for module in (plain, cached)]
            for ours, theirs in zip(*files, strict=True):
                assert np.array_equal(ours, theirs)


def test_a_manifest_is_compared_with_the_files(corpus, tmp_path, capsys):
    copy = shutil.copytree(corpus / "data", tmp_path / "data")
    config = str(corpus / "configs" / "minimal.yaml")
    command = ["data", "check", "--config", config, "--hash", f"data.root={copy}"]
    assert main(command) == 0
    image, other = (min((copy / "images" / split).iterdir()) for split in ("val", "train"))
    shutil.copy(other, image)
    assert main(command) == 3
    assert "its bytes differ from the manifest" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "hrseg.safetensors", "exported.onnx"])
def test_a_file_of_a_later_version_is_refused(corpus, data, monkeypatch, capsys, name):
    # For format 0, the files of today have a later version.
    monkeypatch.setattr(metadata, "NEWEST_FORMAT", 0)
    folder = corpus / "runs" / "minimal" / "latest" if "/" in name else corpus / "weights"
    commands = [["weights", "inspect"]]
    if name.endswith(".ckpt"):
        commands += [["validate", data, "--checkpoint"], ["export"], ["fit", data, "--resume"]]
    for command in commands:
        assert main([*command, str(folder if "--resume" in command else folder / name)]) == 2
        error = capsys.readouterr().err
        assert f"was written by hrseg {corpus.name} " in error and "pgrade" in error
        assert len(error.splitlines()) <= 4
