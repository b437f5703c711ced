"""Parsing of the command line."""

import pytest

from hrseg.cli import join_overrides, main, make_parser, parse
from hrseg.errors import ConfigError

SUBCOMMANDS = [
    "data check",
    "data stats",
    "data cache",
    "weights inspect file",
    "weights convert file --to mmseg",
    "benchmark model",
    "benchmark data",
    "benchmark evaluation",
]


@pytest.mark.parametrize(
    ("written", "joined"),
    [
        (["--data.root", "/d"], ["data.root=/d"]),
        (["--data.root=/d", "seed=1"], ["data.root=/d", "seed=1"]),
        (["--trainer.fast_dev_run"], ["trainer.fast_dev_run=true"]),
        (["--trainer.fast_dev_run", "seed=1"], ["trainer.fast_dev_run=true", "seed=1"]),
        (["--losses[0].weight", "2"], ["losses[0].weight=2"]),
        (["--config", "x"], ["--config", "x"]),
    ],
)
def test_options_with_a_dot_are_overrides(written, joined):
    assert join_overrides(written) == joined


def test_overrides_are_accepted_at_any_position():
    arguments = parse(
        ["fit", "seed=1", "--config", "x.yaml", "data.batch_size=2", "--print-config"]
    )
    assert arguments.command == "fit" and arguments.config == "x.yaml" and arguments.print_config
    assert arguments.overrides == ["seed=1", "data.batch_size=2"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train --config base.yaml", "Did you mean: hrseg fit?"),
        ("vaildate", "Did you mean: hrseg validate?"),
        ("infer img.png", "Did you mean: hrseg predict?"),
        ("data chek", "Did you mean: hrseg data check"),
        ("fit base.yaml", "hrseg fit --config base.yaml"),
        ("validate good.ckpt", "hrseg validate --checkpoint good.ckpt"),
        ("fit --confg x", "hrseg fit has no option --confg.\nDid you mean: --config?"),
        ("export --format tflite", "hrseg export: --format 'tflite' is unknown"),
        ("validate --chekpoint x", "Did you mean: --checkpoint?"),
        ("fit --batch-size 4", "data.batch_size=4"),
        ("fit --lr=0.1", "optimizer.lr=0.1"),
        ("fit --epochs 3", "trainer.max_epochs=3"),
        ("fit --gpus 1", "trainer.devices=1"),
        ("fit --nothing-like-it", "key=value"),
        ("fit --config a --config=b", "--config is given twice"),
        ("fit data.crop_size=[64, 64]", '"data.crop_size=[64, 64]"'),
        ("init d01 data.batch_size=2", "hrseg fit --config d01.yaml data.batch_size=2"),
        ("configs a b=c", "does not accept key=value pairs: b=c"),
        ("doctor now", "hrseg doctor does not accept the argument 'now'"),
        ("predict a.png --threads x", "hrseg predict: argument --threads: invalid int value"),
    ],
)
def test_the_error_of_an_unknown_word_suggests_a_valid_one(words, expected):
    with pytest.raises(ConfigError) as error:
        parse(words.split())
    assert expected in str(error.value)
    assert len(str(error.value).splitlines()) <= 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "usage: hrseg [-h]"),
        (["help"], "usage: hrseg [-h]"),
        (["help", "fit"], "usage: hrseg fit"),
        (["version"], "hrseg "),
    ],
)
def test_help_and_version_are_commands_too(words, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0 and capsys.readouterr().out.startswith(expected)


def test_each_subcommand_has_its_own_function():
    functions = {parse(words.split()).function for words in SUBCOMMANDS}
    assert len(functions) == len(SUBCOMMANDS)


@pytest.mark.parametrize("group", ["data", "weights", "benchmark"])
def test_a_group_without_a_subcommand_prints_its_help(group, capsys):
    assert main([group]) == 0
    assert f"hrseg {group}" in capsys.readouterr().out


def parsers(parser):
    """Return a parser and the parsers of its subcommands."""
    groups = [action for action in parser._actions if isinstance(action.choices, dict)]
    return [parser, *(p for group in groups for child in group.choices.values()
                      for p in parsers(child))]  # fmt: skip


@pytest.mark.parametrize("parser", parsers(make_parser()), ids=lambda parser: parser.prog)
def test_every_command_and_argument_has_a_help_text(parser):
    assert parser.description and parser.description.endswith(".")
    for action in parser._actions:
        assert action.help or isinstance(action.choices, dict), action
