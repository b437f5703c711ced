"""`hrseg predict`: masks, overlays and polygons of images, folders, videos and large images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrseg.commands._shared import (
    POLYGONS,
    add_checkpoint,
    add_overrides,
    add_threads,
    find_checkpoint,
    set_threads,
)
from hrseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from hrseg.config.schema import Config
    from hrseg.inference.predictor import Predictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="input",
        help="image, video, folder, or quoted pattern such as 'clips/*.mp4'",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--config",
        metavar="FILE_OR_NAME",
        help="config of weights that have no metadata, e.g. cityscapes_w48; needs --checkpoint",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        default="predictions",
        help="folder for the results; default: %(default)s",
    )
    _add_outputs(parser)
    parser.add_argument(
        "--resume", action="store_true", help="skip the finished inputs of an earlier call"
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        default="1/1",
        help="predict only shard I of N, e.g. 3/16; each machine predicts another shard",
    )
    parser.add_argument(
        "--tile",
        type=int,
        default=1024,
        help="side of the tiles of large images, in pixels; default: %(default)s",
    )
    parser.add_argument(
        "--overlap", type=int, help="overlap of tiles, in pixels; default: a quarter of --tile"
    )
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, mps, or tensorrt for .onnx files; default: cuda if available, or "
        "else cpu; for exported files cpu",
    )
    parser.add_argument(
        "--precision",
        choices=("32", "bf16", "16"),
        default="32",
        help="precision of the network; default: %(default)s",
    )
    add_overrides(parser)
    parser.epilog = (
        "inference.key=value pairs change the evaluation protocol, e.g. inference.flip=true"
    )
    add_threads(parser)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-overlays", action="store_true", help="write masks without overlays")
    parser.add_argument(
        "--probabilities", action="store_true", help="also write class probabilities, float16 .npz"
    )
    parser.add_argument(
        "--polygons",
        nargs="?",
        choices=POLYGONS,
        const="geojson",
        default="",
        help="also write polygons for annotation tools; default format: geojson",
    )
    parser.add_argument(
        "--confidence", action="store_true", help="also write the confidence, 0..255, of each pixel"
    )
    parser.add_argument(
        "--pseudo",
        type=float,
        metavar="CONFIDENCE",
        help="write masks for training: 255 (ignored) below this confidence, e.g. 0.9",
    )
    parser.add_argument(
        "--frames", action="store_true", help="also write a mask per frame of a video"
    )


def run(arguments: argparse.Namespace) -> int:
    from hrseg.checkpoints.runs import newest_run
    from hrseg.config.loader import load_config, protocol_changes
    from hrseg.inference.inputs import find_sources
    from hrseg.inference.manifest import Shard, check_out

    if arguments.pseudo is not None and not 0 < arguments.pseudo <= 1:
        raise ConfigError(
            f"--pseudo {arguments.pseudo:g} is not a confidence.\n"
            "Expected: a number above 0, at most 1. Fix: --pseudo 0.9"
        )
    shard = Shard.parse(arguments.shard)
    config = load_config(arguments.config, arguments.overrides) if arguments.config else None
    if config and not arguments.checkpoint:
        raise ConfigError(
            "--config describes weights, but --checkpoint is missing.\n"
            "Expected: both options. Fix: add --checkpoint FILE"
        )
    changes = {} if config else protocol_changes(arguments.overrides)
    out = Path(arguments.out)
    sources = find_sources(arguments.inputs, leave_out=out)
    check_out(out)
    checkpoint = find_checkpoint(Path(arguments.checkpoint or newest_run(Path("runs"))))
    from hrseg.inference.outputs import OutputOptions
    from hrseg.inference.predict_files import predict_files
    from hrseg.inference.tiling import GRID, check_tiles

    set_threads(arguments)
    quarter = arguments.tile // 4 // GRID * GRID
    wanted = OutputOptions(
        overlays=not arguments.no_overlays,
        probabilities=arguments.probabilities,
        polygons=arguments.polygons,
        frames=arguments.frames,
        confidence=arguments.confidence,
        pseudo=arguments.pseudo,
        tile=arguments.tile,
        overlap=quarter if arguments.overlap is None else arguments.overlap,
    )
    check_tiles(wanted.tile, wanted.overlap)
    predictor = _predictor(arguments, checkpoint, config, changes)
    faults = predict_files(predictor, sources, out, wanted, checkpoint, arguments.resume, shard)
    return DataError.exit_code if faults else 0


def _predictor(
    arguments: argparse.Namespace,
    checkpoint: Path,
    config: "Config | None",
    changes: dict[str, Any],
) -> "Predictor":
    import torch

    from hrseg.inference.exported_model import is_exported
    from hrseg.inference.predictor import build_predictor, load

    gpu = torch.cuda.is_available() and not is_exported(checkpoint)
    device = arguments.device or ("cuda" if gpu else "cpu")
    if config is not None:
        from hrseg.training.factory import build_data

        data = build_data(config)
        return build_predictor(config, data, checkpoint, device, arguments.precision)
    predictor = load(checkpoint, device, arguments.precision)
    if not changes:
        return predictor
    return predictor.with_protocol(changes.pop("protocol", None), **changes)
