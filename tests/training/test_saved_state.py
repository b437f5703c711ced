import pytest

from hrseg.errors import ConfigError
from hrseg.training.exact_resume import check_state, restoring

STATE = {
    "pytorch-lightning_version": "2.6.6",
    "epoch": 3,
    "global_step": 40,
    "loops": {"fit_loop": {}},
    "callbacks": {"A": {}},
    "optimizer_states": [{"state": {}, "param_groups": []}],
    "lr_schedulers": [{"_step_count": 3, "last_epoch": 2}],
}
WRONG = {
    "pytorch-lightning_version": [None, "\x1b[2J", "x", 3],
    "epoch": ["x", None, [1]],
    "global_step": ["x", None],
    "loops": ["x", None],
    "callbacks": [[1], None],
    "optimizer_states": ["x", None, ["x"]],
    "lr_schedulers": [None, ["x"], [{}], [{"_step_count": "x", "last_epoch": 2}]],
}


@pytest.mark.parametrize("more", [{}, {"pytorch-lightning_version": "2.7.0.post1"}])
def test_what_lightning_writes_is_taken(more, tmp_path):
    check_state({**STATE, **more}, tmp_path / "last.ckpt")


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in WRONG for value in WRONG[key]])
def test_a_part_of_another_kind_is_refused_by_name(key, value, tmp_path):
    with pytest.raises(ConfigError, match=rf"last.ckpt holds no state .*: its {key} is not"):
        check_state({**STATE, key: value}, tmp_path / "last.ckpt")


def in_module(name, error):
    space = {"__name__": name, "error": error}
    exec("def fails():\n    raise error", space)
    return space["fails"]


CONNECTOR = "pytorch_lightning.trainer.connectors.checkpoint_connector"


@pytest.mark.parametrize("error", [KeyError("a\x1b[2J"), TypeError("b"), AttributeError("c")])
def test_what_fails_while_a_state_is_taken_is_said_of_the_state(error, tmp_path):
    with pytest.raises(ConfigError, match=r"last\.ckpt holds no state"), \
         restoring(tmp_path / "last.ckpt"):  # fmt: skip
        in_module(CONNECTOR, error)()


@pytest.mark.parametrize(
    ("module", "error", "path"),
    [("torch.nn", KeyError("a"), "last.ckpt"), (CONNECTOR, KeyError("a"), None),
     (CONNECTOR, MemoryError(), "last.ckpt"), (CONNECTOR, ConfigError("a"), "last.ckpt")]
)  # fmt: skip
def test_what_has_other_causes_stays_as_it_is(module, error, path, tmp_path):
    with pytest.raises(type(error)) as raised, restoring(path and tmp_path / path):
        in_module(module, error)()
    assert raised.value is error
