import math

import pytest
import torch
from torch import nn

from hrseg.errors import ConfigError
from hrseg.training.optimizers import SCHEDULES, adamw, constant, cosine, poly, sgd


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)


def rates(optimizer, schedule=poly, count=None, **arguments):
    schedule = schedule(optimizer, **arguments)
    seen = []
    for _ in range(count or arguments["steps"]):
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


def test_cosine_decays_along_half_a_period_and_stays_at_zero():
    seen = rates(sgd(Model(), lr=2.0), cosine, count=8, steps=6)
    half = math.sqrt(3) / 2
    assert seen == pytest.approx([2, 1 + half, 1.5, 1, 0.5, 1 - half, 0, 0], abs=1e-12)


def test_cosine_without_warmup_equals_that_of_torch():
    optimizer = sgd(Model(), lr=0.1)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    expected = []
    for _ in range(50):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    assert rates(sgd(Model(), lr=0.1), cosine, steps=50) == pytest.approx(expected, abs=1e-9)


def test_constant_keeps_the_base_rate_after_a_linear_warmup():
    seen = rates(sgd(Model(), lr=0.8), constant, count=7, warmup_steps=3)
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_continues_from_its_state(name):
    arguments = {} if name == "constant" else {"steps": 10}
    whole = rates(sgd(Model(), lr=0.3), SCHEDULES[name], count=10, warmup_steps=4, **arguments)
    optimizer = sgd(Model(), lr=0.3)
    schedule = SCHEDULES[name](optimizer, warmup_steps=4, **arguments)
    for _ in range(3):
        optimizer.step()
        schedule.step()
    state, rest = (optimizer.state_dict(), schedule.state_dict()), []
    optimizer = sgd(Model(), lr=0.3)
    schedule = SCHEDULES[name](optimizer, warmup_steps=4, **arguments)
    optimizer.load_state_dict(state[0])
    schedule.load_state_dict(state[1])
    for _ in range(7):
        rest.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rest == whole[3:]


@pytest.mark.parametrize("schedule", [poly, cosine])
def test_a_decay_for_infinite_training_is_refused(schedule):
    with pytest.raises(
        ConfigError, match=f"The {schedule.__name__} schedule needs(.|\n)*max_epochs"
    ):
        schedule(sgd(Model()), steps=float("inf"))


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
