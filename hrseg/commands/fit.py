"""`hrseg fit`: train and validate a model."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.commands._shared import add_config, check_root, config_of, print_once, run_of_arguments
from hrseg.errors import ConfigError

if TYPE_CHECKING:
    from hrseg.config.schema import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "config to train: a YAML file, or the name of a shipped config")
    resume = "resume the run folder RUN; without RUN, the newest run (of --config)"
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help=resume)
    parser.add_argument(
        "--print-config", action="store_true", help="print the complete config and exit"
    )


def run(arguments: argparse.Namespace) -> None:
    from hrseg.config.loader import to_yaml

    if arguments.resume and arguments.config:
        raise ConfigError(
            f"--config {arguments.config} and --resume {arguments.resume} cannot be combined: "
            "a run resumes with its own config.yaml.\n"
            "Expected: one of them. Fix: leave out --config; key=value pairs change the config."
        )
    resume = None if arguments.resume is None else run_to_resume(arguments)
    if resume:
        print_once(f"resuming {resume} with its own config.yaml")
        arguments.config = resume / "config.yaml"
    config = config_of(arguments)
    if arguments.print_config:
        print(to_yaml(config), end="")
        return
    check_root(config)
    if resume is None:
        check_weights(config, arguments.overrides)
    from hrseg.commands._fit import fit

    print_once(f"run folder: {fit(config, resume)}")


def run_to_resume(arguments: argparse.Namespace) -> Path:
    """Return the run folder of `--resume`, or else the newest run of the config."""
    from hrseg.checkpoints.runs import has_state, newest_run, refuse_links

    if arguments.resume:
        folder = Path(arguments.resume).resolve()  # `latest` is a link to the run
        if not has_state(folder):
            raise ConfigError(
                f"{folder} is not a run folder: checkpoints/last.ckpt is missing.\n"
                "Expected: runs/<config>/<date-time>. "
                "Fix: `hrseg fit --resume` resumes the newest run."
            )
        refuse_links(folder)
        return folder
    if arguments.config:
        config = config_of(arguments)
        return newest_run(Path(config.runs), config.name)
    return run_of_arguments(arguments)


def check_weights(config: "Config", overrides: Sequence[str]) -> None:
    """Find or download the initial weights; a fast_dev_run continues without them.

    Raises:
        ConfigError: they are missing, or cannot be downloaded.
    """
    from hrseg.checkpoints.hub import describe_download, fetch, is_remote

    name, backbone = config.model.weights, config.model.backbone.name
    if name is None:
        return
    try:
        if is_remote(name):
            fetch(name, backbone)
            print_once(describe_download(name, backbone))
        elif not Path(name).expanduser().is_file():
            raise ConfigError(
                f"model.weights: no file {Path(name).absolute()}.\n"
                "Expected: imagenet, ssld, timm/NAME, hf:USER/NAME, or the path of a checkpoint.\n"
                f"Fix: {_first_stage(Path(name))}"
                "model.weights=imagenet, or model.weights=null to train from random weights."
            )
    except ConfigError:
        chosen = any(pair.startswith("model.weights=") for pair in overrides)
        if chosen or not config.trainer.get("fast_dev_run"):
            raise
        print_once(f"fast_dev_run: model.weights={name} is not available; random weights are used")
        config.model.weights = None


def _first_stage(weights: Path) -> str:
    """Return the command that writes `NAME/latest/checkpoints/*`, if NAME is a shipped config."""
    from hrseg.config.loader import shipped_configs

    name, *folders = weights.parts[-4:-1] or ("",)
    of_recipe = folders == ["latest", "checkpoints"] and name in shipped_configs()
    return f"`hrseg fit --config {name}` first, or " if of_recipe else ""
