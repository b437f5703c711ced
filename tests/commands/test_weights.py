"""The commands `hrseg weights inspect` and `hrseg weights convert`."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file

import hrseg
from hrseg.cli import main
from tests.golden_weights import official_keys, official_weights
from tests.untrained import save_untrained
from tests.weight_files import imagenet, mmseg, torch04

SMALL = official_weights("w18_small_v1")
CONFIG = "cityscapes_w18_small_v1"


def equal(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def output(capsys):
    captured = capsys.readouterr()
    return " ".join(captured.out.split()) + captured.err


@pytest.fixture
def official(tmp_path):
    path = tmp_path / "hrnet_cs_test_torch11.pth"
    torch.save({f"model.{name}": tensor for name, tensor in SMALL.items()}, path)
    return path


def test_inspect_describes_an_official_file(official, capsys):
    assert main(["weights", "inspect", str(official)]) == 0
    text = output(capsys)
    assert "an official file: HRNetV2-W18-small-v1 with 19 classes" in text
    assert hashlib.sha256(official.read_bytes()).hexdigest() in text.replace(" ", "")
    assert "426 tensors" in text and "9 tensors" in text
    assert "align_corners False, by the authors' configs for hrnet_cs*" in text
    assert "norm weights unchanged: the file name contains torch11" in text


@pytest.mark.parametrize(
    ("name", "state", "expected"),
    [
        ("w_torch04.pth", torch04(SMALL), "an official torch 0.4 file"),
        ("w.pth", imagenet(SMALL), "an ImageNet classification file"),
        ("hrnet_ocr_cs.pth", official_weights("w18_small_v2+ocr"), "with an OCR head of 19"),
        ("nan.pth", SMALL | {"bn1.bias": torch.full((64,), torch.nan)}, "1 tensors contain NaN"),
    ],
)
def test_inspect_prints_family_head_and_damage(name, state, expected, tmp_path, capsys):
    torch.save(state, tmp_path / name)
    assert main(["weights", "inspect", str(tmp_path / name)]) == 0
    assert expected in output(capsys)


def test_inspect_compares_with_the_model_of_a_config(official, capsys):
    assert main(["weights", "inspect", str(official), "--config", CONFIG]) == 0
    assert "every tensor fits" in output(capsys)
    assert main(["weights", "inspect", str(official), "--config", "cityscapes_w48"]) == 2
    text = output(capsys)
    assert "with another shape" in text and "Expected: HRNetV2-W48 with 19 classes" in text


@pytest.mark.parametrize("variant", ["w18_small_v1", "w18_small_v2+ocr"])
@pytest.mark.parametrize("way", ["hrseg", "mmseg"])
def test_an_official_file_survives_two_conversions_bit_by_bit(variant, way, tmp_path):
    state = official_weights(variant)
    torch.save(state, tmp_path / "w.pth")
    there, back = tmp_path / "there.pth", tmp_path / "back.pth"
    assert main(["weights", "convert", str(tmp_path / "w.pth"), "--to", way,
                 "--out", str(there)]) == 0  # fmt: skip
    assert main(["weights", "convert", str(there), "--to", "official", "--out", str(back)]) == 0
    result = torch.load(back, weights_only=True)
    assert list(result) == list(official_keys(variant)) or set(result) == set(state)
    assert equal(result, state)


def test_an_hrseg_file_survives_two_conversions_bit_by_bit(tmp_path, capsys):
    save_untrained(tmp_path / "w.ckpt")
    for family in ("mmseg", "official"):
        assert main(["weights", "convert", str(tmp_path / "w.ckpt"), "--to", family]) == 0
        assert "The new file has no class names, colours, normalisation" in output(capsys)
    assert main(["weights", "convert", str(tmp_path / "w_mmseg.pth"), "--to", "hrseg"]) == 0
    out = tmp_path / "w.safetensors"
    command = ["weights", "convert", str(tmp_path / "w.ckpt"), "--to", "hrseg", "--out", str(out)]
    assert main(command) == 0 and hrseg.load(out).class_names == ["road", "car", "tree"]
    ours = hrseg.load(tmp_path / "w.ckpt").model.state_dict()
    assert equal(load_file(out), ours)
    assert equal(torch.load(tmp_path / "w_mmseg_hrseg.pth")["state_dict"], ours)
    official = torch.load(tmp_path / "w_official.pth")
    assert equal(official, {name.partition(".")[2]: tensor for name, tensor in ours.items()})


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_with_a_config_the_result_loads_as_it_is(official, suffix, tmp_path):
    out = tmp_path / f"w{suffix}"
    command = ["weights", "convert", str(official), "--to", "hrseg", "--config", CONFIG]
    assert main([*command, "--out", str(out)]) == 0
    predictor = hrseg.load(out)
    assert predictor.class_names[:2] == ["road", "sidewalk"]
    assert predictor.protocol.name == "official_cityscapes"
    assert torch.equal(predictor.model.backbone.conv1.weight, SMALL["conv1.weight"])


def test_an_existing_file_and_another_suffix_are_refused(official, tmp_path, capsys):
    (tmp_path / "there.pth").write_bytes(b"precious")
    for out, message in (("there.pth", "exists already"), ("w.onnx", "has another suffix"),
                         ("w.safetensors", "Expected: .pth. Fix: --out")):  # fmt: skip
        command = ["weights", "convert", str(official), "--to", "mmseg"]
        assert main([*command, "--out", str(tmp_path / out)]) == 2
        assert message in output(capsys)
    assert (tmp_path / "there.pth").read_bytes() == b"precious"


def test_weights_of_another_model_than_the_configs_are_not_relabelled(official, tmp_path, capsys):
    command = ["weights", "convert", str(official), "--to", "hrseg", "--config", "camvid_w18"]
    assert main([*command, "--out", str(tmp_path / "w.pth")]) == 2
    assert "does not fit" in output(capsys)
    assert not (tmp_path / "w.pth").exists()


def test_the_rule_of_torch04_is_applied_once(tmp_path, capsys):
    file = tmp_path / "hrnet_lip_torch04.pth"
    torch.save(torch04(SMALL), file)
    command = ["weights", "convert", str(file), "--to", "official"]
    assert main(command) == 0
    twice = hrseg.create_model("hrnet_w18_small_v1")
    assert hrseg.load_weights(twice, tmp_path / "hrnet_lip_torch11_official.pth").notes == [
        "norm weights unchanged: the file name contains torch11"
    ]
    once = hrseg.create_model("hrnet_w18_small_v1")
    hrseg.load_weights(once, file)
    assert equal(once.state_dict(), twice.state_dict())
    assert main([*command, "--out", str(tmp_path / "w_Torch04.pth")]) == 2
    error = output(capsys)
    assert "Expected: a name without torch04" in error and "w_torch11.pth" in error


@pytest.mark.parametrize("meta", [{"CLASSES": ("road", "sky")},
                                  {"dataset_meta": {"classes": ["road", "sky"]}}])  # fmt: skip
def test_class_names_of_mmseg_are_shown(meta, tmp_path, capsys):
    torch.save({"meta": meta, "state_dict": mmseg(SMALL)}, tmp_path / "w.pth")
    assert main(["weights", "inspect", str(tmp_path / "w.pth")]) == 0
    text = output(capsys)
    assert "classes road, sky" in text and "align_corners False, as in the configs of mm" in text


def test_names_in_a_file_are_printed_without_markup(tmp_path, capsys):
    path = save_untrained(tmp_path / "w[bold].ckpt")
    content = torch.load(path, weights_only=True)
    content["hrseg"]["class_names"] = ["[/x]", "[red]", "tree"]
    content["state_dict"]["model.head.[/x]"] = torch.ones(1)
    torch.save(content, path)
    assert main(["weights", "inspect", str(path), "--config", CONFIG]) == 2
    text = output(capsys)
    assert "[/x], [red], tree" in text and "w[bold].ckpt" in text and "head.[/x]" in text
    assert "align_corners False, by the file's metadata" in text


def test_an_exported_file_cannot_be_converted(tmp_path, capsys):
    (tmp_path / "w.onnx").write_bytes(b"")
    assert main(["weights", "convert", str(tmp_path / "w.onnx"), "--to", "official"]) == 2
    assert "is an exported file.\nExpected: a checkpoint" in output(capsys)


def test_a_full_disk_is_reported(official, monkeypatch, capsys):
    def full(*arguments):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1 vs 0")

    monkeypatch.setattr("hrseg.commands._weights.torch.save", full)
    assert main(["weights", "convert", str(official), "--to", "official"]) == 2
    assert "_official.pth could not be written" in output(capsys)


def test_an_override_without_a_config_is_refused(official, capsys):
    assert main(["weights", "inspect", str(official), "model.head=ocr"]) == 2
    assert "model.head=ocr changes a config, but --config is missing" in output(capsys)
