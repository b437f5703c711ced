"""Example plugins of docs/plugins, used from the command line."""

import pytest
import torch

import hrseg
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.cli import main
from hrseg.utils.registry import load_plugin
from tests.camvid_tree import fit_overrides
from tests.paths import ROOT

DOCS = ROOT / "docs" / "plugins"
BLOBS = "data={name: blobs, root: blobs, count: 4, batch_size: 2, crop_size: [48, 64]}"
# The tiny backbone makes the other examples fast, and tests two plugins at once.
EXAMPLES = {
    "tiny_backbone": ["model.backbone={name: tiny, width: 8}"],
    "poly_loss": ["model.backbone=tiny", "losses=[{name: poly1, epsilon: 1.5}]"],
    "blobs_dataset": ["model.backbone=tiny", BLOBS, "losses=[cross_entropy]"],
}


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_works_in_fit_validate_export_and_predict(
    example, camvid, tmp_path, forget, capsys
):
    files = sorted({str(DOCS / f"{name}.py") for name in (example, "tiny_backbone")})
    plugins = [word for file in files for word in ("--plugin", file)]
    unused = "data." if "blobs" in example else "-"
    shared = [pair for pair in fit_overrides(camvid) if not pair.startswith(unused)]
    assert main(["fit", "--config", "camvid_w18_small", *shared, *EXAMPLES[example], *plugins]) == 0
    run = (tmp_path / "runs/camvid_w18_small/latest").resolve()
    metadata = read_checkpoint(run / "checkpoints/best.ckpt")["hrseg"]
    assert metadata["plugin"] == " --plugin ".join(files)
    images = str(tmp_path / ("blobs/val/images" if "blobs" in example else "camvid/val"))
    for command in (["validate"], ["export", "--format", "onnx"], ["predict", images]):
        assert main([*command, *plugins]) == 0
    exported = str(run / "exported/camvid_w18_small.onnx")
    assert main(["predict", images, "--out", "by_file", "--checkpoint", exported]) == 0

    forget()
    capsys.readouterr()
    for command in (["validate"], ["export"], ["fit", "--resume"], ["report"]):
        assert main(command) == 2
        message = capsys.readouterr().err
        assert len(message.splitlines()) == 2
        assert message.endswith(f"Fix: add {' '.join(plugins)}\n")
    assert main(["predict", images]) == 2
    assert f"Fix: add {' '.join(plugins)}; in Python" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("plugin", "pairs", "message"),
    [
        ("poly_loss", ["losses=[{name: poly1, epsilom: 1}]"], "losses[0].epsilom: unknown key. Did "
         "you mean: epsilon?"),
        ("tiny_backbone", ["model.backbone=tiny", "model.activation_checkpointing=true"],
         "The backbone Tiny has no activation checkpointing"),
    ],
)  # fmt: skip
def test_a_wrong_option_for_a_plugin_is_named(plugin, pairs, message, camvid, forget, capsys):
    command = ["fit", "--config", "camvid_w18_small", *fit_overrides(camvid), *pairs]
    assert main([*command, "--plugin", str(DOCS / f"{plugin}.py")]) == 2
    assert message in capsys.readouterr().err


def test_the_poly_loss_adds_the_probability_of_the_other_classes_to_cross_entropy(forget):
    load_plugin(str(DOCS / "poly_loss.py"))
    logits, mask = torch.randn(2, 3, 8, 8), torch.randint(3, (2, 8, 8))
    mask[0] = 255
    entropy = torch.nn.functional.cross_entropy(logits, mask, ignore_index=255)
    others = 1 - logits[1].softmax(0).gather(0, mask[1:]).mean()
    for epsilon in (0.0, 2.0):
        loss = hrseg.losses.LOSSES["poly1"](epsilon=epsilon)(logits, mask)
        torch.testing.assert_close(loss, entropy + epsilon * others)
