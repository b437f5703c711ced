import pytest
from torch import nn

from hrseg.errors import ConfigError
from hrseg.training.optimizers import adamw, poly, sgd


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)


def rates(optimizer, **arguments):
    schedule = poly(optimizer, **arguments)
    seen = []
    for _ in range(arguments["steps"]):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_poly_decays_per_step_from_the_base_rate_to_zero():
    seen = rates(sgd(Model(), lr=1.0), steps=4, power=0.9)
    assert seen == pytest.approx([1.0, 0.75**0.9, 0.5**0.9, 0.25**0.9])


def test_warmup_is_linear_before_the_decay():
    seen = rates(sgd(Model(), lr=1.0), steps=10, power=0.0, warmup_steps=3)
    assert seen[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_poly_for_infinite_training_is_refused():
    with pytest.raises(ConfigError, match="max_epochs"):
        poly(sgd(Model()), steps=float("inf"))


def test_the_rate_of_the_head_is_multiplied_and_weight_decay_acts_on_all_parameters():
    optimizer = sgd(Model(), lr=0.1, head_lr_multiplier=10, weight_decay=1e-4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}


def test_frozen_parameters_are_excluded():
    model = Model()
    model.backbone.requires_grad_(False)
    (group,) = adamw(model).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.head.parameters()]
