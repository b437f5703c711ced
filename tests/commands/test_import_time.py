"""Imports of a command, measured in a new process."""

import subprocess
import sys

import pytest

from tests.camvid_tree import fit_overrides, make_camvid

# The import of each takes from 0.1 s to several seconds.
HEAVY = ("torch", "numpy", "cv2", "rich", "PIL", "pytorch_lightning", "albumentations")
NEVER = (
    "torchvision transformers pandas sklearn onnx onnxruntime openvino nncf tensorboard wandb "
    "mlflow IPython torch._inductor.compile_fx"
).split()


def imported(code, names):
    script = f"import sys\n{code}\nprint('loaded:', *[n for n in {names!r} if n in sys.modules])"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()[-1].split()[1:]


def main(*arguments):
    return f"import hrseg.cli\nassert hrseg.cli.main({list(arguments)!r}) == 0"


@pytest.mark.parametrize(
    "arguments", [["configs"], ["fit", "--config", "cityscapes_w48", "--print-config"]]
)
def test_a_command_without_a_model_does_not_import_torch(arguments):
    assert imported(main(*arguments), HEAVY) == []


def test_an_invalid_override_is_reported_without_torch():
    code = (
        "import hrseg.cli\nassert hrseg.cli.main(['fit', '--config', 'camvid_w18', 'dta=1']) == 2"
    )
    assert imported(code, HEAVY) == []


def test_training_does_not_import_unused_packages(tmp_path):
    make_camvid(tmp_path / "camvid")
    pairs = [*fit_overrides(tmp_path / "camvid"), "trainer.max_epochs=1", f"runs={tmp_path}/runs"]
    code = main("fit", "--config", "camvid_w18_small", *pairs, "trainer.accelerator=cpu")
    assert imported(code, NEVER) == []


def test_only_a_command_changes_the_garbage_collector():
    code = "import gc\nbefore = gc.get_threshold()\nimport hrseg\n"
    code += "assert gc.get_threshold() == before\n"
    after = "\nassert gc.get_threshold() != before\nassert gc.isenabled()"
    assert imported(code + main("configs") + after, HEAVY) == []
