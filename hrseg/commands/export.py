"""`hrseg export`: write a model for other runtimes and verify the file."""

import argparse
from pathlib import Path

from hrseg.commands._shared import add_overrides, check_least, find_checkpoint, run_of_arguments
from hrseg.errors import ConfigError
from hrseg.utils.files import check_output, is_empty, other_kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder or checkpoint; default: the newest run")
    add_overrides(parser)
    formats = ("onnx", "openvino", "safetensors", "torch-export")
    parser.add_argument(
        "--format", choices=formats, default="onnx", help="format of the file; default: %(default)s"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="file to write; default: <run>/exported/<name>"
    )
    parser.add_argument(
        "--argmax", action="store_true", help="output class ids, uint8 (B, H, W), not logits"
    )
    quarter = "output logits at a quarter of the input size"
    parser.add_argument("--head-resolution", action="store_true", help=quarter)
    parser.add_argument(
        "--normalized",
        action="store_true",
        help="input normalised float32, not integers",
    )
    parser.add_argument(
        "--int8", action="store_true", help="quantise to 8 bits, calibrated on the training set"
    )
    images = "number of validation images to compare mIoU on; default: all; 0: no comparison"
    parser.add_argument("--images", type=int, help=images)
    device = "run the file on cpu, cuda, cuda:1 or tensorrt to verify it; default: %(default)s"
    parser.add_argument("--device", default="cpu", help=device)
    config = "config of weights that have no metadata, e.g. cityscapes_w48; default: the run's"
    parser.add_argument("--config", metavar="FILE_OR_NAME", help=config)


def run(arguments: argparse.Namespace) -> None:
    check_least(arguments, 0, "images")
    if arguments.argmax and arguments.head_resolution:
        raise ConfigError(
            "--argmax and --head-resolution cannot be combined: ids have the size of the image.\n"
            "Expected: at most one of them. Fix: leave out --head-resolution."
        )
    from hrseg.checkpoints.runs import refuse_links, run_of
    from hrseg.config.loader import load_config

    checkpoint = find_checkpoint(run_of_arguments(arguments))
    folder = run_of(checkpoint)
    if folder is not None:
        refuse_links(folder)
    file = arguments.config or (folder and folder / "config.yaml")
    if arguments.overrides and not file:
        raise ConfigError(
            f"{arguments.overrides[0]}: {checkpoint} is not in a run folder, so that its data set "
            "is unknown.\nExpected: the config to change. Fix: --config NAME"
        )
    config = load_config(file, arguments.overrides) if file else None
    from hrseg.export.exporter import export_checkpoint
    from hrseg.export.writers import Form

    output = "ids" if arguments.argmax else "head" if arguments.head_resolution else "logits"
    input = "normalized" if arguments.normalized else "uint8"
    form = Form(arguments.format, input, output, arguments.int8)
    target = Path(arguments.out) if arguments.out else form.default_path(checkpoint, folder)
    check_output("--out", target)
    written = [target, *[target.with_suffix(".bin")] * (arguments.format == "openvino")]
    for file in written if not Path(f"{target}.proof.json").is_file() else ():
        if not is_empty(file):
            raise other_kind("--out", file)
    export_checkpoint(checkpoint, target, form, config, arguments.images, arguments.device)
