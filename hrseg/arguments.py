"""What the command line takes: every command with its options, and overrides among them."""

import argparse
import re
from collections.abc import Sequence

from hrseg.errors import ConfigError
from hrseg.utils.constants import __version__

_PREDICTS = r"(inference|data|model)\.[\w.]+="  # else a word is a file, whatever its name
OVERRIDES = "key=value pairs that change the config, e.g. data.batch_size=4 trainer.devices=2"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse options in any order among `key=value` pairs.

    Raises:
        ConfigError: an argument that is neither.
    """
    parser = make_parser()
    arguments, rest = parser.parse_known_args(join_overrides(argv))
    if hasattr(arguments, "inputs"):
        # argparse takes one row of positional words alone; options may stand between them.
        words = [*arguments.inputs, *(word for word in rest if not word.startswith("-"))]
        arguments.overrides = [word for word in words if re.match(_PREDICTS, word)]
        arguments.inputs = [word for word in words if word not in arguments.overrides]
        rest = [word for word in rest if word not in words]
    wrong = [word for word in rest if word.startswith("-") or "=" not in word]
    if wrong or (rest and not hasattr(arguments, "overrides")):
        raise ConfigError(
            f"unknown argument {(wrong or rest)[0]!r}. Keys of the config are written key=value, "
            "e.g. data.batch_size=4 seed=1.\nSee hrseg --help."
        )
    if rest:
        arguments.overrides += rest
    return arguments


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; `command` says which one was given."""
    parser = argparse.ArgumentParser(
        "hrseg", description="Semantic segmentation with HRNet.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"hrseg {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    command = commands.add_parser("fit", help="train, validate, keep the best checkpoint")
    _add_config(command, "config to train: a file or the name of a shipped one")
    command.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="go on in RUN, or in the newest run"
    )
    command.add_argument("--print-config", action="store_true", help="print the config and stop")
    command.set_defaults(command="fit")

    command = commands.add_parser("validate", help="score a checkpoint: per class, per scale")
    _add_config(command, "config to score by; default: the run's own")
    command.add_argument("--checkpoint", help="file; default: the best one of the newest run")
    command.add_argument("--threads", type=int, help="of the processor; default: one per core")
    command.set_defaults(command="validate")

    command = commands.add_parser("test", help="write masks for a benchmark's server")
    _add_config(command, "config to predict by; default: the run's own")
    command.add_argument("--checkpoint", help="file; default: the best one of the newest run")
    command.set_defaults(command="test")

    _add_predict(commands.add_parser("predict", help="images, folders, videos: masks, overlays"))

    _add_export(commands.add_parser("export", help="a file for other runtimes, proven equal"))

    command = commands.add_parser("report", help="one page that shows how good, where not, why")
    command.add_argument("run", nargs="?", help="run folder, or one of its validate/ folders")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    command.add_argument("--images", type=int, default=60, help="pictures in the page, at most")
    command.set_defaults(command="report")

    _add_score(commands.add_parser("score", help="score mask files against true ones"))

    command = commands.add_parser("init", help="look at a folder of images, write a config for it")
    command.add_argument("folder", help="folder with images and masks")
    command.add_argument("--out", help="file to write; default: <folder name>.yaml")
    command.set_defaults(command="init")

    _add_data(commands.add_parser("data", help="check the files of a data set; its class weights"))

    _add_weights(commands.add_parser("weights", help="what a file of weights is; convert it"))

    _add_benchmark(commands.add_parser("benchmark", help="speed and memory on this machine"))

    command = commands.add_parser("configs", help="list the shipped configs, or copy one here")
    command.add_argument("name", nargs="?", help="the one to copy into this folder")
    command.set_defaults(command="configs")

    command = commands.add_parser("doctor", help="print versions, devices and known problems")
    command.set_defaults(command="doctor")
    return parser


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="input",
        help="files, folders, 'patterns/*.mp4'; inference.* pairs change the protocol",
    )
    parser.add_argument("--checkpoint", help="file or run; default: the best of the newest run")
    parser.add_argument("--config", help="what other people's weights are, e.g. cityscapes_w48")
    parser.add_argument(
        "--out", default="predictions", help="folder to write to; default: %(default)s"
    )
    parser.add_argument("--no-overlays", action="store_true", help="masks alone")
    parser.add_argument("--probabilities", action="store_true", help="per class, float16 .npz")
    parser.add_argument("--polygons", action="store_true", help="GeoJSON per image")
    parser.add_argument("--frames", action="store_true", help="a mask per frame of a video")
    parser.add_argument("--resume", action="store_true", help="leave out what is finished")
    parser.add_argument("--tile", type=int, default=1024, help="side of tiles of large images")
    parser.add_argument("--overlap", type=int, help="of tiles, in pixels; default: a quarter")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: cuda if there is one")
    parser.add_argument("--precision", choices=("32", "bf16", "16"), default="32")
    parser.add_argument("--threads", type=int, help="of the processor; default: one per core")
    parser.set_defaults(command="predict")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder or checkpoint; default: the newest run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
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
    parser.set_defaults(command="export")


def _add_score(command: argparse.ArgumentParser) -> None:
    _add_config(command, "config whose data section says classes and ids")
    command.add_argument("--truth", required=True, help="folder of true masks")
    command.add_argument("--prediction", required=True, help="folder of predicted masks")
    command.add_argument("--out", help="file for the scores as JSON")
    command.add_argument(
        "--prediction-ids",
        choices=("raw", "train"),
        default="raw",
        help="predictions hold ids as the truth does (raw, the default) or 0..K-1 as hrseg's do",
    )
    command.set_defaults(command="score")


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Add `data check`, `data stats` and `data cache`; `data` alone prints its help."""
    parser.set_defaults(command="data", help=parser.format_help)
    commands = parser.add_subparsers(metavar="command")

    check = commands.add_parser("check", help="look at every file, list what is wrong")
    _add_config(check, "config whose data section says which data set")
    check.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="default: train and val, test if it is there"
    )
    check.add_argument(
        "--hash", action="store_true", help="compare with the manifest of sha256 sums, or write it"
    )
    check.set_defaults(command="data_check")

    stats = commands.add_parser("stats", help="class weights, mean and standard deviation")
    _add_config(stats, "config whose data section says which data set")
    stats.add_argument("--split", help="default: the one to train on")
    stats.set_defaults(command="data_stats")

    cache = commands.add_parser("cache", help="decode images once; data.cache=FOLDER uses them")
    _add_config(cache, "config whose data section says which data set")
    cache.add_argument("--verify", action="store_true", help="read it all, find what is damaged")
    cache.add_argument("--workers", type=int, help="threads; default: one per core")
    cache.set_defaults(command="data_cache")

    for command in (check, stats):
        command.add_argument("--json", metavar="FILE", help="write the result as JSON too")
        command.add_argument("--workers", type=int, help="processes; default: one per core")


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Add `benchmark model`, `data` and `evaluation`; `benchmark` alone prints its help."""
    parser.set_defaults(command="data", help=parser.format_help)
    commands = parser.add_subparsers(metavar="command")

    model = commands.add_parser("model", help="training step and inference: time, memory, MACs")
    _add_config(model, "config whose network, losses and crop are measured; no data is read")
    model.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="default: the crop")
    model.add_argument("--batch", type=int, help="default: the config's for a device; inference: 1")
    model.add_argument("--steps", type=int, help="to time; default: 10, fewer where they are slow")
    model.set_defaults(command="benchmark_model")

    data = commands.add_parser("data", help="samples per second; does training wait for them?")
    _add_config(data, "config whose data is read, and whose training step waits for it")
    data.add_argument("--seconds", type=float, default=5.0, help="per number of workers, about")
    data.add_argument("--no-model", action="store_true", help="leave the training step out")
    data.set_defaults(command="benchmark_data")

    evaluation = commands.add_parser("evaluation", help="a validation image: network, the rest")
    _add_config(evaluation, "config whose validation images are evaluated, by its protocol")
    evaluation.add_argument("--images", type=int, default=10, help="at most; default: %(default)s")
    evaluation.add_argument("--checkpoint", help="weights, or an exported file; default: random")
    evaluation.set_defaults(command="benchmark_evaluation")

    for command in (model, data, evaluation):
        command.add_argument("--json", metavar="FILE", help="write the result as JSON too")


def _add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `weights inspect` and `weights convert`; `weights` alone prints its help."""
    parser.set_defaults(command="data", help=parser.format_help)
    commands = parser.add_subparsers(metavar="command")

    inspect = commands.add_parser("inspect", help="say what a file is, and what fits a config")
    inspect.add_argument("file", help="weights of any family, or an exported file")
    _add_config(inspect, "config whose model the file is compared with")
    inspect.set_defaults(command="weights_inspect")

    convert = commands.add_parser("convert", help="write weights under another family's names")
    convert.add_argument("file", help="weights of any family")
    convert.add_argument("--to", required=True, choices=("official", "mmseg", "hrseg"))
    convert.add_argument("--out", help="file; default: <name>_<family>.pth beside it")
    _add_config(convert, "with --to hrseg: classes, colours, protocol, so that hrseg.load takes it")
    convert.set_defaults(command="weights_convert")


def _add_config(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument("--config", help=help)
    command.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)


def join_overrides(argv: Sequence[str]) -> list[str]:
    """Turn `--data.root /data` and `--data.root=/data` into `data.root=/data`."""
    joined: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if re.match(r"--\w+[.\[]", word):
            word = word[2:]
            if "=" not in word:
                # A key alone is a switch: --trainer.fast_dev_run
                alone = not words or re.match(r"-|[\w.\[\]]+=", words[0])
                word += f"={'true' if alone else words.pop(0)}"
        joined.append(word)
    return joined
