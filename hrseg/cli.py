"""The command line: parse, load the config, build, call. Heavy imports happen inside a command."""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.arguments import parse
from hrseg.checkpoints.runs import is_first_process, refuse_links
from hrseg.commands._shared import (
    check_root,
    check_weights,
    checkpoint_to_score,
    config_name,
    run_of_arguments,
    run_to_resume,
)
from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.startup import spare_imports
from hrseg.subcommands import SUBCOMMANDS
from hrseg.utils.files import FULL, PARTIAL
from hrseg.utils.signals import Stopped, stoppable
from hrseg.utils.system import keep_memory
from hrseg.utils.text import one_line, printable_message

if TYPE_CHECKING:
    from hrseg.config.schema import Config


_ELSEWHERE = "If it is to be written, choose a place that can be: runs=FOLDER, --out PATH."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code.

    0 ok, 1 fault, 2 config, 3 data, 4 failed proof, 130 and 143 stopped by Ctrl-C and SIGTERM,
    129 by the terminal's end, 141 where nobody reads on.
    """
    try:
        with stoppable():
            arguments = parse(sys.argv[1:] if argv is None else argv)
            spare_imports()
            if arguments.command in _COMPUTE:
                keep_memory()
            from hrseg.utils.console import plain_output

            with plain_output():
                return int(_COMMANDS[arguments.command](arguments) or 0)
    except Stopped as stop:
        if is_first_process() and str(stop):
            _complain(str(stop))
        return stop.exit_code
    except HrsegError as error:
        _complain(printable_message(str(error)))
        return error.exit_code
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        what = one_line(str(error.filename or "a file could not be written")).replace(PARTIAL, "")
        _complain(f"{what}: {error.strerror}\n{_ELSEWHERE}")
        return 2
    except KeyboardInterrupt:
        _complain("stopped")
        return 130


def _complain(text: str) -> None:
    if sys.stderr is not None:  # print would take stdout for one that was closed
        with suppress(OSError):  # the terminal may be gone
            print(f"hrseg: {text}", file=sys.stderr)


def _fit(arguments: argparse.Namespace) -> None:
    from hrseg.config.loader import load_config, to_yaml

    if arguments.resume and "=" in arguments.resume:
        arguments.overrides.insert(0, arguments.resume)
        arguments.resume = ""
    resume = None if arguments.resume is None else run_to_resume(arguments)
    if resume:
        _tell(f"going on in {resume}, by its own config.yaml")
    config = load_config(
        resume / "config.yaml" if resume else config_name(arguments), arguments.overrides
    )
    if arguments.print_config:
        print(to_yaml(config), end="")
        return
    check_root(config)
    if resume is None:
        check_weights(config, arguments.overrides)
    from hrseg.commands.fit import fit

    _tell(f"run folder: {fit(config, resume)}")


def _tell(line: str) -> None:
    """Print in the first process of a run, which speaks for all."""
    if is_first_process():
        print(line)


def _validate(arguments: argparse.Namespace) -> None:
    config, checkpoint, home = checkpoint_to_score(arguments)
    _set_threads(arguments.threads)
    from hrseg.commands.fit import validate

    with _new_folder(config, home / "validate") as folder:
        validate(config, checkpoint, folder)
    _tell(f"scores: {folder / 'scores.json'}\npictures: {folder / 'predictions'}")


def _test(arguments: argparse.Namespace) -> None:
    config, checkpoint, home = checkpoint_to_score(arguments)
    from hrseg.commands.fit import test

    with _new_folder(config, home / "test") as folder:
        submission = test(config, checkpoint, folder)
    _tell(f"masks: {folder / 'masks'}")
    if submission.is_file():
        _tell(f"for the server, checked: {submission}")


@contextmanager
def _new_folder(config: "Config", home: Path) -> Iterator[Path]:
    """Make a dated folder; one that a refusal leaves behind is removed."""
    from hrseg.training.distributed import new_folder, scout
    from hrseg.training.loggers import quieten

    quieten()
    folder = new_folder(scout(config.trainer), home)
    try:
        yield folder
    except (ConfigError, DataError, Stopped):
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _predict(arguments: argparse.Namespace) -> int:
    from hrseg.checkpoints.runs import checkpoint_at, newest_run
    from hrseg.config.loader import load_config, protocol_changes
    from hrseg.inference.inputs import find_sources

    config = load_config(arguments.config, arguments.overrides) if arguments.config else None
    if config and not arguments.checkpoint:
        raise ConfigError("--config says what the weights of --checkpoint are: name those as well.")
    changes = {} if config else protocol_changes(arguments.overrides)
    out = Path(arguments.out)
    sources = find_sources(arguments.inputs, leave_out=out)
    checkpoint = checkpoint_at(Path(arguments.checkpoint or newest_run(Path("runs"))))
    if not checkpoint.is_file():
        raise ConfigError(f"no such checkpoint: {checkpoint.absolute()}")
    from hrseg.inference.outputs import Wanted
    from hrseg.inference.predict_files import predict
    from hrseg.inference.tiling import default_overlap

    _set_threads(arguments.threads)
    wanted = Wanted(
        overlays=not arguments.no_overlays,
        probabilities=arguments.probabilities,
        polygons=arguments.polygons,
        frames=arguments.frames,
        tile=arguments.tile,
        overlap=default_overlap(arguments.tile) if arguments.overlap is None else arguments.overlap,
    )
    where = {"device": arguments.device, "precision": arguments.precision}
    resume = arguments.resume
    outcome = predict(
        checkpoint, sources, out, wanted, changes, **where, resume=resume, config=config
    )
    return DataError.exit_code if outcome.faults else 0


def _set_threads(threads: int | None) -> None:
    """Take as many threads of the processor; an exported file's runtime takes as many as torch."""
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads {threads}: expected 1 or more.")
        import torch

        torch.set_num_threads(threads)


def _export(arguments: argparse.Namespace) -> None:
    from hrseg.checkpoints.runs import checkpoint_at, run_of
    from hrseg.config.loader import load_config

    if arguments.run and "=" in arguments.run and not Path(arguments.run).exists():
        arguments.overrides.insert(0, arguments.run)
        arguments.run = None
    given = Path(arguments.run) if arguments.run else run_of_arguments(arguments)
    checkpoint = checkpoint_at(given)
    if not checkpoint.is_file():
        raise ConfigError(f"no such checkpoint: {checkpoint.absolute()}")
    run = run_of(checkpoint)
    if run is not None:
        refuse_links(run)
    described = arguments.config or (run and run / "config.yaml")
    if arguments.overrides and not described:
        raise ConfigError(
            f"{arguments.overrides[0]}: {checkpoint} lies in no run folder, so that nothing says "
            "which data set is meant.\nSay it: --config NAME."
        )
    config = load_config(described, arguments.overrides) if described else None
    from hrseg.export.exporter import export_checkpoint
    from hrseg.export.writers import Form

    if arguments.argmax and arguments.head_resolution:
        raise ConfigError("--argmax gives ids at the size of the image: leave one of the two out.")
    if arguments.images is not None and arguments.images < 0:
        raise ConfigError(f"--images {arguments.images}: expected 0 or more.")
    output = "ids" if arguments.argmax else "head" if arguments.head_resolution else "logits"
    taken = "normalized" if arguments.normalized else "uint8"
    form = Form(arguments.format, taken, output, arguments.int8)
    target = Path(arguments.out) if arguments.out else form.default_path(checkpoint, run)
    export_checkpoint(checkpoint, target, form, config, arguments.images)


def _report(arguments: argparse.Namespace) -> None:
    if arguments.run and "=" in arguments.run and not Path(arguments.run).exists():
        arguments.overrides.insert(0, arguments.run)
        arguments.run = None
    folder = Path(arguments.run) if arguments.run else run_of_arguments(arguments)
    if not folder.is_dir():
        raise ConfigError(f"no such folder: {folder.absolute()}")
    refuse_links(folder)
    from hrseg.evaluation.analysis import write_details
    from hrseg.evaluation.image_scores import open_evaluation
    from hrseg.evaluation.report import write_report

    evaluation = open_evaluation(folder, arguments.overrides)
    try:
        write_details(evaluation)
    except DataError as error:
        print(f"note: no details and no pictures: {error}")
    print(f"report: {write_report(folder, arguments.overrides, arguments.images)}")


def _score(arguments: argparse.Namespace) -> None:
    from hrseg.config.loader import load_config

    config = load_config(config_name(arguments), arguments.overrides)
    from hrseg.evaluation.mask_scoring import score_folders

    out = Path(arguments.out) if arguments.out else None
    truth, prediction = Path(arguments.truth), Path(arguments.prediction)
    score_folders(config, truth, prediction, out, arguments.prediction_ids)


def _init(arguments: argparse.Namespace) -> None:
    from hrseg.data.analysis.suggest_config import inspect_folder, write_config

    root = Path(arguments.folder)
    out = Path(arguments.out or f"{root.resolve().name}.yaml")
    if out.exists():
        raise ConfigError(f"{out} exists already. Remove it, or name another file with --out.")
    text = write_config(inspect_folder(root))
    out.write_text(text, encoding="utf-8")
    print("".join(line for line in text.splitlines(keepends=True) if line.startswith("#")), end="")
    print(f"wrote {out}. Look it over, then: hrseg fit --config {out}")


def _configs(arguments: argparse.Namespace) -> None:
    from hrseg.config.loader import shipped_configs
    from hrseg.utils.registry import find

    configs = shipped_configs()
    if not arguments.name:
        for name, path in configs.items():
            print(
                f"{name:27} {path.read_text(encoding='utf-8').partition(chr(10))[0].lstrip('# ')}"
            )
        return
    source = find(configs, arguments.name.removesuffix(".yaml"), "config")
    target = Path(source.name)
    if target.exists():
        raise ConfigError(f"{target} exists already in this folder; it was left as it is.")
    shutil.copyfile(source, target)
    print(f"wrote {target}")


def _doctor(arguments: argparse.Namespace) -> int:
    from hrseg.commands.doctor import diagnose

    return diagnose()


_COMPUTE = ("fit", "validate", "test", "predict", "export", "benchmark_data")

_COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "fit": _fit,
    "validate": _validate,
    "test": _test,
    "predict": _predict,
    "export": _export,
    "report": _report,
    "score": _score,
    "init": _init,
    "configs": _configs,
    "doctor": _doctor,
    **SUBCOMMANDS,
}
