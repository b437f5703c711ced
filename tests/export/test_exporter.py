"""Export of real files, read with the real runtimes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import hrseg
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.cli import main
from hrseg.errors import ConfigError, VerificationError
from hrseg.export import verification
from hrseg.export.exporter import export
from hrseg.export.verification import Comparison
from hrseg.export.writers import Form
from hrseg.inference.predictor import Predictor
from tests.conftest import picture, save_image
from tests.untrained import NAMES, save_untrained


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("export") / "w.ckpt")


@pytest.fixture(scope="module")
def images():
    return [picture((65, 97), seed) for seed in range(2)]


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """Return a folder with two exported files, shared because each export takes seconds."""
    for module in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("files")
    export(hrseg.load(checkpoint), folder / "w.onnx", Form("onnx"))
    export(hrseg.load(checkpoint), folder / "w.xml", Form("openvino", "normalized", "head"))
    return folder


@pytest.mark.parametrize("name", ["w.onnx", "w.xml"])
def test_an_exported_file_predicts_like_its_checkpoint(name, exported, checkpoint, images):
    file, original = hrseg.load(exported / name), hrseg.load(checkpoint)
    assert file.class_names == NAMES and file.palette == original.palette
    pairs = [(original, file)]
    if name == "w.xml":  # normalised input supports every protocol
        pairs.append((original.with_protocol("mmseg"), file.with_protocol("mmseg")))
    for pair in pairs:
        expected, actual = (predictor.predict(images[0], scores=True) for predictor in pair)
        assert (actual.mask == expected.mask).mean() > 0.999
        np.testing.assert_allclose(actual.scores, expected.scores, rtol=1e-3, atol=1e-4)


def test_openvino_supports_bf16_and_unsupported_requests_are_refused(exported, checkpoint, images):
    bf16 = hrseg.load(exported / "w.xml", precision="bf16").predict(images[0])
    exact = hrseg.load(checkpoint).predict(images[0])
    assert (bf16.mask == exact.mask).mean() > 0.95
    with pytest.raises(ConfigError, match="ONNX Runtime has no bf16 on the device cpu"):
        hrseg.load(exported / "w.onnx", precision="bf16")
    with pytest.raises(ConfigError, match=r"w\.xml .* runs only on the CPU, not on 'cuda'"):
        hrseg.load(exported / "w.xml", device="cuda")
    with pytest.raises(ConfigError, match="is an exported model"):
        export(hrseg.load(exported / "w.onnx"), exported / "x.onnx", Form("onnx"))


def test_the_proof_is_written_next_to_the_file(exported):
    for name in ("w.onnx", "w.xml"):
        figures = json.loads((exported / f"{name}.proof.json").read_text())
        assert figures["file"] == name and len(figures["shapes"]) == 20
        assert figures["max_difference"] < 1e-4 and figures["agreement"] > 0.999
        assert figures["device"] == "cpu"
    assert len(list(exported.iterdir())) == 5  # two files, two proofs and w.bin


def test_onnx_runtime_without_hrseg_predicts_the_same(exported, checkpoint, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "w.onnx")
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["hrseg"])
    (logits,) = session.run(["logits"], {"image": images[0].transpose(2, 0, 1)[None]})
    expected = hrseg.load(checkpoint).predict(images[0]).mask
    assert (logits[0].argmax(0) == expected).mean() > 0.999
    assert metadata["class_names"] == NAMES and metadata["export"]["input"] == "uint8"


def test_hrseg_predict_accepts_a_file(exported, images, tmp_path, capsys):
    out = tmp_path / "out"
    image = save_image(tmp_path / "a.png", images[0])
    command = ["predict", str(image), "--out", str(out), "--no-overlays"]
    assert main([*command, "--checkpoint", str(exported / "w.onnx"), "--threads", "1"]) == 0
    mask = np.asarray(Image.open(out / "masks" / "a.png"))
    assert (mask == hrseg.load(exported / "w.xml").predict(images[0]).mask).mean() > 0.999
    scaled = [*command, "inference.scales=[0.5,1.0]", "--checkpoint", str(exported / "w.onnx")]
    assert main(scaled) == 2
    assert "export it with --normalized" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["w.onnx", "w.xml"])
def test_hrseg_validate_scores_a_file_like_its_checkpoint(
    name, exported, checkpoint, images, tmp_path
):
    for index, image in enumerate(images):
        mask = hrseg.load(checkpoint).predict(image).mask
        mask[:20] = index  # wrong in some pixels
        save_image(tmp_path / f"data/images/val/{index}.png", image)
        save_image(tmp_path / f"data/masks/val/{index}.png", mask)
    data = [f"data.root={tmp_path / 'data'}", f"data.class_names={NAMES}".replace(" ", "")]
    data += ["model.backbone=hrnet_w18_small_v1", "data.workers=0", "trainer.precision=32-true"]
    scores = []
    for file in (checkpoint, exported / name):
        out = tmp_path / file.name
        command = ["validate", "--config", "folder", "--checkpoint", str(file), f"runs={out}"]
        assert main([*command, *data]) == 0
        (path,) = out.rglob("scores.json")
        scores.append(json.loads(path.read_text())["miou"])
    assert 0.2 < scores[0] < 0.99 and scores[1] == pytest.approx(scores[0], abs=1e-3)


def test_a_missing_device_is_an_error_before_the_export_and_the_evaluation(
    exported, checkpoint, tmp_path, capsys
):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this package has CUDA")
    target, config = tmp_path / "w.onnx", ["--config", "synthetic_tiny", f"runs={tmp_path}"]
    for command, message in (
        (["export", str(checkpoint), "--out", str(target)], "ONNX Runtime here has no CUDA"),
        (["predict", str(tmp_path), "--checkpoint", str(exported / "w.onnx")], "here has no CUDA"),
        (["validate", "--checkpoint", str(exported / "w.onnx"), *config], "here has no CUDA"),
        (["validate", "--checkpoint", str(checkpoint), *config], "is for exported files"),
    ):
        save_image(tmp_path / "a.png", picture((33, 33), 0))
        assert main([*command, "--device", "cuda"]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.onnx*")) and not list(tmp_path.rglob("scores.json"))


def test_torch_export_writes_ids_and_safetensors_writes_weights(checkpoint, tmp_path, images):
    predictor = hrseg.load(checkpoint)
    figures = export(predictor, tmp_path / "w.pt2", Form("torch-export", output="ids"))
    assert figures["max_difference"] is None and figures["agreement"] > 0.9999
    export(predictor, tmp_path / "w.safetensors", Form("safetensors"))
    file = hrseg.load(tmp_path / "w.safetensors")
    assert np.array_equal(file.predict(images[0]).mask, predictor.predict(images[0]).mask)


@pytest.mark.slow
@pytest.mark.parametrize(("format", "suffix"), [("torch-export", ".pt2"), ("openvino", ".xml")])
def test_an_ocr_head_with_output_v1_can_be_exported(format, suffix, checkpoint, tmp_path):
    assert_exportable({"head": "ocr", "output": "v1"}, format, suffix, checkpoint, tmp_path)


@pytest.mark.slow
def test_the_coarsest_stream_with_one_fusion_can_be_exported(checkpoint, tmp_path):
    switches = {"exchange": "final", "output": "stream_4"}
    assert_exportable(switches, "torch-export", ".pt2", checkpoint, tmp_path)


def assert_exportable(switches, format, suffix, checkpoint, tmp_path):
    torch.manual_seed(0)
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=3, **switches)
    classifier = model.head.cls_head if "head" in switches else model.head.last_layer[-1]
    torch.nn.init.normal_(classifier.weight, std=1.0)
    metadata = {**read_checkpoint(checkpoint)["hrseg"], "architecture": model.architecture}
    figures = export(Predictor(model, metadata), tmp_path / f"w{suffix}", Form(format))
    assert figures["max_difference"] < 1e-4 and figures["agreement"] > 0.999


def test_a_failed_verification_keeps_the_older_file(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "MAX_DIFFERENCE", -1.0)
    (tmp_path / "w.safetensors").write_bytes(b"older file")
    with pytest.raises(VerificationError, match="was not kept"):
        export(hrseg.load(checkpoint), tmp_path / "w.safetensors", Form("safetensors"))
    assert (tmp_path / "w.safetensors").read_bytes() == b"older file"
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_command_reports_wrong_options_and_the_written_file(
    checkpoint, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        ("--format safetensors --out w.pt", "ends with .safetensors"),
        ("--format safetensors --argmax", ""),
        ("--int8", "needs the data set"),
        ("--argmax --head-resolution", ""),
        ("--format openvino --device cuda", "which is verified on the CPU"),
        ("--device mps", "cannot run .onnx files"),
        ("data.root=/data", "is not in a run folder"),
    ):
        assert main(["export", str(checkpoint), *words.split()]) == 2
        assert message in capsys.readouterr().err
    command = ["export", str(checkpoint), "--format", "safetensors", "--out", "w.safetensors"]
    assert main(command) == 0
    assert "exported: w.safetensors" in capsys.readouterr().out
    scenes = ["data.num_train=1", "data.num_val=1", f"data.root={tmp_path / 'scenes'}"]
    assert main([*command, "--config", "synthetic_tiny", *scenes]) == 2
    assert "The data set has other classes than the model" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "format"), [("w.xml", "openvino"), ("w.onnx", "onnx")])
def test_int8_is_calibrated_and_evaluated(checkpoint, images, tmp_path, name, format):
    pytest.importorskip("nncf")
    predictor = hrseg.load(checkpoint)
    masks = [predictor.predict(image).mask for image in images]
    comparison = Comparison(lambda index: (images[index], masks[index]), range(2))
    # The usual limit is for trained weights; these weights are random.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(verification.MAX_LOSS, True, 1.0)
        figures = export(
            predictor, tmp_path / name, Form(format, int8=True), comparison, calibration=images
        )
    assert figures["miou"]["original"] == 1.0 and figures["miou"]["agreement"] > 0.8
    assert hrseg.load(tmp_path / name).predict(images[0]).mask.shape == (65, 97)


def test_the_error_for_missing_packages_contains_the_install_command(monkeypatch, tmp_path):
    monkeypatch.setattr("hrseg.export.writers.find_spec", lambda name: None)
    message = r'needs onnx, onnxscript, openvino\.\nFix: `pip install "hrseg'
    with pytest.raises(ConfigError, match=message):
        Form("openvino").check(tmp_path / "w.xml")
