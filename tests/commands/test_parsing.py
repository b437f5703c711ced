import pytest

from hrseg.cli import join_overrides, parse
from hrseg.errors import ConfigError


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
def test_what_is_no_argument_is_named(argv):
    with pytest.raises(ConfigError, match="unknown argument"):
        parse(argv)
