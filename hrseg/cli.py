"""Entry point of the command line: find the command, run it, print errors, return an exit code.

Exit codes: 0 ok, 1 fault of hrseg, 2 usage or config, 3 data, 4 a verification failed, 130 and 143
stopped by Ctrl-C and SIGTERM, 129 by the end of the terminal, 141 by a closed output.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from hrseg.errors import ConfigError, HrsegError
from hrseg.utils.constants import __version__
from hrseg.utils.files import FULL, PARTIAL
from hrseg.utils.signals import Stopped, stoppable
from hrseg.utils.text import one_line, printable_message

# Each is a module of hrseg.commands, imported when it is called.
COMMANDS = {
    "fit": "train, validate, keep the best checkpoint",
    "validate": "score a checkpoint: per class, per scale",
    "test": "write masks for a benchmark's server",
    "predict": "images, folders, videos: masks, overlays",
    "export": "a file for other runtimes, proven equal",
    "report": "a page with scores, pictures and the worst errors",
    "score": "score mask files against true ones",
    "init": "look at a folder of images, write a config for it",
    "data": "check the files of a data set; its class weights",
    "weights": "inspect or convert a file of weights",
    "benchmark": "speed and memory on this machine",
    "configs": "list the shipped configs, or copy one here",
    "doctor": "print versions, devices and known problems",
}
_COMPUTE = ("fit", "validate", "test", "predict", "export")
_PAIR = r"[\w.\[\]]+="
_PROTOCOL_PAIR = r"(inference|data|model)\.[\w.]+="  # another word of `predict` is a file
_UNWRITABLE = "If it is to be written, choose a place that can be: runs=FOLDER, --out PATH."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    try:
        with stoppable():
            return _run(parse(sys.argv[1:] if argv is None else argv))
    except Stopped as stop:
        from hrseg.checkpoints.runs import is_first_process

        if is_first_process() and str(stop):
            _print_error(str(stop))
        return stop.exit_code
    except HrsegError as error:
        _print_error(printable_message(str(error)))
        return error.exit_code
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        file = one_line(str(error.filename or "a file could not be written")).replace(PARTIAL, "")
        _print_error(f"{file}: {error.strerror}\n{_UNWRITABLE}")
        return 2
    except KeyboardInterrupt:
        _print_error("stopped")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    from hrseg.utils.console import plain_output
    from hrseg.utils.registry import load_plugin
    from hrseg.utils.system import keep_memory, relax_garbage_collection, share_processors

    relax_garbage_collection()
    share_processors()
    if arguments.command in _COMPUTE:
        keep_memory()
    with plain_output():
        for plugin in getattr(arguments, "plugin", None) or ():
            load_plugin(plugin)
        return int(arguments.function(arguments) or 0)


def _print_error(text: str) -> None:
    if sys.stderr is not None:  # print would write to stdout if stderr is closed
        with suppress(OSError):  # the terminal may be gone
            print(f"hrseg: {text}", file=sys.stderr)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse options, and `key=value` pairs anywhere among them; `function` runs the command."""
    words = join_overrides(argv)
    command = next((word for word in words if word in COMMANDS), "")
    pair = _PROTOCOL_PAIR if command == "predict" else _PAIR
    overrides = [word for word in words if re.match(pair, word)]
    others = [word for word in words if word not in overrides]
    arguments, rest = make_parser([command]).parse_known_args(others)
    if hasattr(arguments, "inputs"):  # argparse takes one row of them; options may stand between
        arguments.inputs += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if hasattr(arguments, "overrides"):
        arguments.overrides = overrides
    else:
        rest += overrides
    if rest and hasattr(arguments, "checkpoint") and Path(rest[0]).exists():
        raise ConfigError(
            f"{rest[0]} is not an option of `hrseg {command}`.\n"
            f"Expected: the checkpoint after its option. Fix: --checkpoint {rest[0]}"
        )
    if rest:
        raise ConfigError(
            f"unknown argument {rest[0]!r}. Keys of the config are written key=value, "
            "e.g. data.batch_size=4 seed=1.\nSee hrseg --help."
        )
    return arguments


def make_parser(commands: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Return the parser with the arguments of `commands`, and a line of help for the others."""
    parser = argparse.ArgumentParser(
        "hrseg", description="Semantic segmentation with HRNet.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"hrseg {__version__}")
    subparsers = parser.add_subparsers(metavar="command", required=True)
    for name, help in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help)
        if name in commands:
            module = import_module(f"hrseg.commands.{name}")
            subparser.set_defaults(command=name, function=getattr(module, "run", None))
            module.add_arguments(subparser)
    return parser


def join_overrides(argv: Sequence[str]) -> list[str]:
    """Turn `--data.root /data` and `--data.root=/data` into `data.root=/data`."""
    joined: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if re.match(r"--\w+[.\[]", word):
            word = word[2:]
            if "=" not in word:
                # A key without a value is a switch: --trainer.fast_dev_run
                switch = not words or words[0].startswith("-") or re.match(_PAIR, words[0])
                word += f"={'true' if switch else words.pop(0)}"
        joined.append(word)
    return joined
