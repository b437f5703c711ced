"""`hrseg export`: write a model for other runtimes and verify the file."""

import argparse
from pathlib import Path

from hrseg.commands._shared import (
    add_overrides,
    check_least,
    find_checkpoint,
    run_of_arguments,
)
from hrseg.errors import ConfigError
from hrseg.utils.files import check_output, is_empty, other_kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder or checkpoint; default: the newest run")
    add_overrides(parser)
    formats = ("onnx", "openvino", "safetensors", "torch-export")
    parser.add_argument("--format", choices=formats, default="onnx", help="default: %(default)s")
    parser.add_argument("--out", help="file; default: <run>/exported/<name>, by the format")
    parser.add_argument("--argmax", action="store_true", help="give ids, uint8 (B, H, W)")
    parser.add_argument(
        "--head-resolution", action="store_true", help="give logits of a quarter of the size"
    )
    parser.add_argument(
        "--normalized", action="store_true", help="take normalised float32, not uint8 RGB"
    )
    parser.add_argument("--int8", action="store_true", help="8 bits, fitted to the training set")
    parser.add_argument("--images", type=int, help="compare mIoU on so many; default: all; 0: none")
    parser.add_argument("--config", help="what other people's weights are, e.g. cityscapes_w48")


def run(arguments: argparse.Namespace) -> None:
    check_least(arguments, 0, "images")
    if arguments.argmax and arguments.head_resolution:
        raise ConfigError("--argmax gives ids at the size of the image: leave one of the two out.")
    from hrseg.checkpoints.runs import refuse_links, run_of
    from hrseg.config.loader import load_config

    checkpoint = find_checkpoint(run_of_arguments(arguments))
    folder = run_of(checkpoint)
    if folder is not None:
        refuse_links(folder)
    described = arguments.config or (folder and folder / "config.yaml")
    if arguments.overrides and not described:
        raise ConfigError(
            f"{arguments.overrides[0]}: {checkpoint} is not in a run folder, so that its data set "
            "is unknown.\nFix: --config NAME."
        )
    config = load_config(described, arguments.overrides) if described else None
    from hrseg.export.exporter import export_checkpoint
    from hrseg.export.writers import Form

    output = "ids" if arguments.argmax else "head" if arguments.head_resolution else "logits"
    taken = "normalized" if arguments.normalized else "uint8"
    form = Form(arguments.format, taken, output, arguments.int8)
    target = Path(arguments.out) if arguments.out else form.default_path(checkpoint, folder)
    check_output("--out", target)
    written = [target, *[target.with_suffix(".bin")] * (arguments.format == "openvino")]
    for file in written if not Path(f"{target}.proof.json").is_file() else ():
        if not is_empty(file):
            raise other_kind("--out", file)
    export_checkpoint(checkpoint, target, form, config, arguments.images)
