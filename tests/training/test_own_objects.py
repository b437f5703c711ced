"""User-defined losses, optimizers, schedules, networks and heads in SegmentationTask."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

import hrseg
from hrseg.errors import ConfigError
from hrseg.models import Segmenter
from tests.conftest import noise, silent_trainer, tiny_task


class Stride4(nn.Module):
    """Minimal backbone: one convolution."""

    channels, strides = (8,), (4,)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)

    def forward(self, image):
        return [self.conv(image)]


class Head(nn.Module):
    def __init__(self, channels, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 1)

    def forward(self, features):
        return {"out": self.conv(features[0])}


def fit(task, folder, **arguments):
    trainer = silent_trainer(folder, **arguments)
    trainer.fit(task, DataLoader(noise(), 2), DataLoader(noise(2)))
    return trainer


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(ignore_index=255),
        [nn.CrossEntropyLoss(ignore_index=255)],
        [lambda logits, mask: F.cross_entropy(logits, mask, ignore_index=255)],
        {"loss": nn.CrossEntropyLoss(ignore_index=255), "weight": 1, "on": "out"},
    ],
    ids=["module", "list", "function", "dict"],
)
def test_a_loss_object_gives_the_value_of_the_named_loss(loss, tmp_path):
    own = fit(tiny_task(losses=loss), tmp_path).callback_metrics["train/loss"]
    named = fit(tiny_task(losses="cross_entropy"), tmp_path).callback_metrics["train/loss"]
    assert own.item() == pytest.approx(named.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"losses": nn.CrossEntropyLoss()}, r"ignore_index=-100.\nExpected: 255(.|\n)*Fix: CrossE"),
        ({"losses": [nn.CrossEntropyLoss]}, "CrossEntropyLoss is not a function of"),
        ({"losses": [3]}, "The loss int is not a function"),
        ({"optimizer": 3}, r"The optimizer is a int.\nExpected: a name \(sgd, adamw\)"),
        ({"schedule": 3}, r"The schedule is a int.\nExpected: a name \(poly, cosine, constant\)"),
        ({"class_names": ["a", "a"]}, "class_names has 'a' twice"),
    ],
)
def test_invalid_objects_are_refused_by_the_constructor(arguments, message):
    names = arguments.pop("class_names", ["a", "b"])
    with pytest.raises(ConfigError, match=message):
        tiny_task(names, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"losses": nn.CrossEntropyLoss(ignore_index=255, reduction="none")},
            r"returned a tensor \(2, 64, 64\).\nExpected: a scalar",
        ),
        ({"optimizer": lambda parameters: None}, r"returned a NoneType.\nExpected: a torch Optim"),
        ({"schedule": lambda optimizer: 3}, r"returned a int.\nExpected: a torch LRScheduler"),
    ],
)
def test_objects_with_invalid_results_are_refused(arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fit(tiny_task(**arguments), tmp_path)


def test_optimizers_and_schedules_are_functions_or_objects(tmp_path):
    task = tiny_task(optimizer=torch.optim.Adam, schedule=lambda optimizer: StepLR(optimizer, 1))
    trainer = fit(task, tmp_path, max_epochs=1)
    assert type(trainer.optimizers[0]) is torch.optim.Adam
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-5)  # two steps

    def halves(optimizer, steps):
        return StepLR(optimizer, int(steps) // 2, 0.5)

    task = tiny_task(freeze_backbone=True, optimizer=lambda p: torch.optim.SGD(p, 0.1))
    task.schedule_spec = halves
    trainer = fit(task, tmp_path)
    (group,) = trainer.optimizers[0].param_groups
    assert len(group["params"]) == len(list(task.model.head.parameters()))
    assert group["lr"] == pytest.approx(0.025)
    task = tiny_task()
    task.optimizer_spec = torch.optim.SGD(task.model.parameters(), 0.1)
    assert fit(task, tmp_path).optimizers == [task.optimizer_spec]


def test_a_task_can_be_loaded_from_its_checkpoint(tmp_path):
    protocol = hrseg.Protocol(flip=True)
    task = tiny_task(["a", "b"], palette=[(1, 2, 3), (4, 5, 6)], protocol=protocol, std=(1, 1, 1))
    fit(task, tmp_path).save_checkpoint(tmp_path / "a.ckpt")
    loaded = hrseg.SegmentationTask.load_from_checkpoint(tmp_path / "a.ckpt", losses="dice")
    assert (loaded.class_names, loaded.palette) == (["a", "b"], [[1, 2, 3], [4, 5, 6]])
    assert (loaded.protocol, loaded.loss_specs) == (protocol, ["dice"])
    assert loaded.normalize.std == (1, 1, 1)
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name])
    with pytest.raises(ConfigError):
        hrseg.SegmentationTask.load_from_checkpoint(tmp_path / "missing.ckpt")


def own_segmenter():
    torch.manual_seed(0)
    return Segmenter(Stride4(), Head(8))


def other_head():
    torch.manual_seed(0)
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=2, output="v1")
    model.head = Head(model.backbone.channels[0])
    return model


@pytest.mark.parametrize(
    ("make", "parts"),
    [(own_segmenter, "backbone Stride4, head Head"), (other_head, "head Head")],
)
def test_user_defined_parts_are_trained_and_recorded_in_the_checkpoint(make, parts, tmp_path):
    trainer = fit(hrseg.SegmentationTask(make(), ["a", "b"]), tmp_path)
    path = tmp_path / "a.ckpt"
    with pytest.warns(UserWarning, match=f"create_model does not build this network .{parts}"):
        trainer.save_checkpoint(path)
    with warnings.catch_warnings(action="error", category=UserWarning):
        trainer.save_checkpoint(path)  # the warning is issued once
    with pytest.raises(ConfigError, match=f"does not build: {parts}(.|\\n)*model="):
        hrseg.load(path)
    loaded = hrseg.SegmentationTask.load_from_checkpoint(path, model=make())
    trained = trainer.lightning_module.model.state_dict()
    assert all(torch.equal(t, loaded.model.state_dict()[name]) for name, t in trained.items())


def test_a_network_of_create_model_has_no_replaced_parts(tmp_path):
    trainer = fit(tiny_task(freeze_backbone=True), tmp_path)
    with warnings.catch_warnings(action="error", category=UserWarning):
        trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert "replaced" not in torch.load(tmp_path / "a.ckpt", weights_only=True)["hrseg"]


def test_the_error_for_another_network_names_the_missing_methods():
    with pytest.raises(ConfigError, match=r"Conv2d has no outputs and no upsample.\nExpected: hrs"):
        hrseg.SegmentationTask(nn.Conv2d(3, 2, 1), ["a", "b"])
