"""What a command imports, seen from outside: in a process of its own."""

import subprocess
import sys

import pytest

from tests.camvid_tree import fit_overrides, make_camvid

# Each costs from a tenth of a second to seconds.
HEAVY = ("torch", "numpy", "cv2", "rich", "PIL", "pytorch_lightning", "albumentations")
NEVER = (
    "scipy.signal scipy.stats scipy.optimize scipy.ndimage matplotlib torchvision transformers "
    "pandas sklearn onnx onnxruntime openvino nncf tensorboard wandb mlflow IPython "
    "torch._inductor.compile_fx"
).split()


def imported(code, names):
    script = f"import sys\n{code}\nprint('loaded:', *[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def main(*arguments):
    return f"import hrseg.cli\nassert hrseg.cli.main({list(arguments)!r}) == 0"


@pytest.mark.parametrize(
    "arguments", [["configs"], ["fit", "--config", "cityscapes_w48", "--print-config"]]
)
def test_what_needs_no_network_imports_none(arguments):
    assert imported(main(*arguments), HEAVY) == []


def test_a_typo_is_answered_without_torch():
    code = (
        "import hrseg.cli\nassert hrseg.cli.main(['fit', '--config', 'camvid_w18', 'dta=1']) == 2"
    )
    assert imported(code, HEAVY) == []


def test_training_imports_nothing_that_it_does_not_need(tmp_path):
    make_camvid(tmp_path / "camvid")
    pairs = [*fit_overrides(tmp_path / "camvid"), "trainer.max_epochs=1", f"runs={tmp_path}/runs"]
    code = main("fit", "--config", "camvid_w18_small", *pairs, "trainer.accelerator=cpu")
    assert imported(code, NEVER) == []


def test_what_was_spared_is_there_for_whoever_asks_for_it():
    code = (
        "from hrseg.utils.system import spare_imports\nspare_imports()\nimport pytorch_lightning\n"
        "assert 'scipy.signal' not in sys.modules\n"
        "from scipy.signal import find_peaks\n"
        "assert find_peaks([0, 1, 0])[0].tolist() == [1]"
    )
    assert imported(code, ["scipy.signal"]) == ["scipy.signal"]


def test_other_programs_import_torchmetrics_as_ever():
    code = "import hrseg.training.task, torchmetrics\nfrom torchmetrics.utilities import imports"
    assert imported(f"{code}\nassert imports._SCIPY_AVAILABLE", ["scipy.signal"]) == [
        "scipy.signal"
    ]
