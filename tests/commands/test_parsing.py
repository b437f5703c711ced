import pytest

from hrseg.cli import join_overrides, main, parse
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


def test_overrides_may_stand_anywhere():
    arguments = parse(
        ["fit", "seed=1", "--config", "x.yaml", "data.batch_size=2", "--print-config"]
    )
    assert arguments.command == "fit" and arguments.config == "x.yaml" and arguments.print_config
    assert arguments.overrides == ["seed=1", "data.batch_size=2"]


@pytest.mark.parametrize("argv", [["fit", "--confg", "x"], ["configs", "a", "b=c"]])
def test_an_unknown_argument_is_named(argv):
    with pytest.raises(ConfigError, match="unknown argument"):
        parse(argv)


def test_each_subcommand_has_a_function_of_its_own():
    functions = {parse(words.split()).function for words in SUBCOMMANDS}
    assert len(functions) == len(SUBCOMMANDS)


@pytest.mark.parametrize("group", ["data", "weights", "benchmark"])
def test_a_group_without_a_subcommand_prints_its_help(group, capsys):
    assert main([group]) == 0
    assert f"hrseg {group}" in capsys.readouterr().out
