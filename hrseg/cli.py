"""Command-line entry point: argument parsing, error output and exit codes.

Exit codes: 0 success, 1 internal error, 2 invalid usage or config, 3 invalid data, 4 failed
verification, 130 Ctrl-C, 143 SIGTERM, 129 closed terminal (SIGHUP), 141 closed output (SIGPIPE).
"""

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from hrseg.commands._shared import CHECKPOINTS, POLYGONS, add_command
from hrseg.config.common_keys import COMMON_KEYS
from hrseg.errors import ConfigError, HrsegError
from hrseg.utils.constants import __version__
from hrseg.utils.files import FULL, PARTIAL
from hrseg.utils.signals import Stopped, stoppable
from hrseg.utils.text import one_line, printable_message

# Help texts by command. Each command is a module of hrseg.commands, imported on use.
COMMANDS = {
    "fit": "train and validate a model",
    "validate": "score a checkpoint per class and per scale",
    "test": "write masks of the test split for a benchmark server",
    "predict": "write masks and overlays of images and videos",
    "export": "export a model to another format and verify the file",
    "calibrate": "fit the confidence of a run on its validation split",
    "report": "write an HTML report with scores and pictures",
    "score": "score mask files against ground-truth masks",
    "init": "inspect a folder of images and write its config",
    "data": "check, summarise, cache or import a data set",
    "weights": "list, download, inspect or convert weights",
    "push": "publish a model on the Hugging Face Hub",
    "benchmark": "measure speed and memory on this machine",
    "configs": "list the shipped configs or copy one",
    "doctor": "print versions, devices and known problems",
}
# Names of these commands in other tools.
_SYNONYMS = {
    "train": "fit", "infer": "predict", "inference": "predict", "segment": "predict",
    "eval": "validate", "evaluate": "validate", "val": "validate", "check": "data check",
    "stats": "data stats", "convert": "weights convert", "info": "doctor",
}  # fmt: skip
_COMPUTE = ("fit", "validate", "test", "predict", "export", "calibrate")
_PAIR = r"[\w.\[\]]+="
_PROTOCOL_PAIR = r"(inference|data|model)\.[\w.]+="  # `predict` reads other words as files
_UNWRITABLE = (
    "Expected: a file that can be read, or a folder that can be written to.\n"
    "Fix: choose another path, e.g. runs=FOLDER or --out PATH."
)


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
        file = one_line(str(error.filename or "A file could not be written")).replace(PARTIAL, "")
        _print_error(f"{file}: {error.strerror}.\n{_UNWRITABLE}")
        return 2
    except (ImportError, RuntimeError) as error:
        if "torchvision" not in str(error):
            raise
        from hrseg.commands.doctor import REPAIRS

        _print_error(
            f"torchvision does not fit this torch: {one_line(str(error))}.\n"
            "Expected: no torchvision, or the version for this torch.\n"
            f"Fix: {REPAIRS['torchvision']}"
        )
        return 2
    except KeyboardInterrupt:
        _print_error("stopped")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    from hrseg.utils.console import plain_output
    from hrseg.utils.registry import load_plugin
    from hrseg.utils.system import keep_memory, relax_garbage_collection, share_processors

    relax_garbage_collection()
    if arguments.command in _COMPUTE:
        share_processors()
        keep_memory()
    with plain_output():
        for plugin in getattr(arguments, "plugin", None) or ():
            load_plugin(plugin)
        return int(arguments.function(arguments) or 0)


def _print_error(text: str) -> None:
    if sys.stderr is not None:  # print writes to stdout if stderr is closed
        with suppress(OSError):  # the terminal may be closed
            print(f"hrseg: {text}", file=sys.stderr)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse options, and the `key=value` pairs among them.

    The attribute `function` of the result runs the command.

    Raises:
        ConfigError: an unknown command, option or argument. The message suggests a valid one.
    """
    words = _with_format(join_overrides(argv)) or ["--help"]
    if words[0] == "help":
        words = [*words[1:], "--help"]
    elif words == ["version"]:
        words = ["--version"]
    command = next((word for word in words if word in COMMANDS), "")
    pair = _PROTOCOL_PAIR if command == "predict" else _PAIR
    overrides = [word for word in words if re.match(pair, word)]
    others = [word for word in words if word not in overrides]
    if sum(word.partition("=")[0] == "--config" for word in others) > 1:
        raise ConfigError(
            "--config is given twice.\n"
            "Expected: one config. Fix: keep one --config; key=value pairs change its keys."
        )
    arguments, rest = make_parser([command]).parse_known_args(others)
    if hasattr(arguments, "inputs"):  # argparse collects only the inputs before the next option
        arguments.inputs += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if hasattr(arguments, "overrides"):
        arguments.overrides = overrides
    elif overrides:
        raise ConfigError(_refused_pair(arguments, overrides[0]))
    if rest:
        raise ConfigError(_refused(arguments, rest, overrides))
    return arguments


class _Parser(argparse.ArgumentParser):
    """Parser that raises ConfigError; `parser` of the namespace is that of the subcommand."""

    def __init__(self, *positional: Any, **options: Any) -> None:
        super().__init__(*positional, **{**options, "allow_abbrev": False})
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        choice = re.search(
            r"argument (.*): invalid choice: '?(.*?)'? \(choose from (.*)\)", message
        )
        if not choice:
            raise ConfigError(f"{self.prog}: {message}.\n{_see_help(self)}")
        kind, name, known = choice[1], choice[2], re.findall(r"[\w.-]+", choice[3])
        near = get_close_matches(name, known, n=2)
        if self.prog == "hrseg" and name in _SYNONYMS:
            near = [_SYNONYMS[name]]
        fault = f"{self.prog}: {kind} {name!r} is unknown"
        if kind == "command":
            fault = f"{self.prog} has no command {name!r}"
            near = [f"{self.prog} {command}" for command in near]
        hint = f" Did you mean: {' or '.join(near)}?" if near else ""
        raise ConfigError(f"{fault}.{hint}\nExpected: {', '.join(known)}.\n{_see_help(self)}")


def make_parser(commands: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Return the parser with the arguments of `commands`, and the help texts of all commands."""
    parser = _Parser("hrseg", description="Semantic segmentation with HRNet.")
    parser.add_argument("--version", action="version", version=f"hrseg {__version__}")
    subparsers = parser.add_subparsers(metavar="command", required=True)
    for name, help in COMMANDS.items():
        subparser = add_command(subparsers, name, help)
        if name in commands:
            module = import_module(f"hrseg.commands.{name}")
            subparser.set_defaults(command=name, function=getattr(module, "run", None))
            module.add_arguments(subparser)
    return parser


def _with_format(words: list[str]) -> list[str]:
    """Write `--polygons` without a format as `--polygons=geojson`, because an input may follow."""
    return [
        "--polygons=geojson" if word == "--polygons" and following not in POLYGONS else word
        for word, following in zip(words, [*words, ""][1:], strict=True)
    ]


def _see_help(parser: argparse.ArgumentParser) -> str:
    return f"Fix: `{parser.prog} --help` lists the arguments."


def _refused_pair(arguments: argparse.Namespace, pair: str) -> str:
    """Return the message for a `key=value` pair of a command without a config."""
    fix = _see_help(arguments.parser)
    if arguments.command == "init":
        name = Path(arguments.folder).resolve().name
        fix = f"Fix: `hrseg fit --config {arguments.out or f'{name}.yaml'} {pair}`"
    return (
        f"{arguments.parser.prog} does not accept key=value pairs: {pair}.\n"
        f"Expected: only arguments and options. {fix}"
    )


def _refused(arguments: argparse.Namespace, rest: Sequence[str], overrides: Sequence[str]) -> str:
    """Return the message for words that a command does not accept, with a suggestion."""
    word, parser = rest[0], arguments.parser
    options = re.findall(r"--[\w-]+", parser.format_help())
    if word.startswith("-"):
        fix = _suggestion(rest, options, hasattr(arguments, "overrides")) or _see_help(parser)
        return f"{parser.prog} has no option {word.partition('=')[0]}.\n{fix}"
    for pair in overrides[-1:]:
        if len(re.findall(r"[\[{]", pair)) > len(re.findall(r"[\]}]", pair)):
            return (
                f"{pair} is cut off by a space.\n"
                "Expected: a pair without spaces, or a pair in quotes.\n"
                f'Fix: {pair}{"".join(rest)} or "{pair} {" ".join(rest)}"'
            )
    option = "--checkpoint" if word.endswith(CHECKPOINTS) else "--config"
    fix = f"Fix: `{parser.prog} {option} {word}`" if option in options else _see_help(parser)
    return f"{parser.prog} does not accept the argument {word!r}.\n{fix}"


def _suggestion(rest: Sequence[str], options: Sequence[str], has_config: bool) -> str:
    """Return a suggestion of the option or config key that `rest[0]` may mean."""
    name, _, value = rest[0].partition("=")
    value = value or next((word for word in rest[1:2] if not word.startswith("-")), "VALUE")
    near = get_close_matches(name, options, n=1)
    key = COMMON_KEYS.get(name.lstrip("-").replace("-", "_"))
    if key and has_config:
        return f"Expected: keys of the config as key=value. Fix: {key}={value}"
    if near:
        return f"Did you mean: {near[0]}?"
    example = "Expected: keys of the config as key=value, e.g. data.batch_size=4"
    return example if has_config else ""


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
