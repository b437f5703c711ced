"""Registration of plugin parts from files, modules and installed packages."""

import importlib.metadata
import pickle
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from torch import nn

import hrseg
from hrseg.config.loader import load_config, to_yaml
from hrseg.errors import ConfigError
from hrseg.inference.evaluator import Evaluator
from hrseg.inference.tiling import predict_bands
from hrseg.models.normalize import Normalize
from hrseg.models.optimize import fold
from hrseg.utils.registry import load_plugin
from tests.conftest import batch_of, noise, silent_trainer, tiny_task

PLUGIN = """
import hrseg, torch
@hrseg.optimizers.register("lion")
def lion(model, lr: float, beta: float = 0.9):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=beta)
@hrseg.schedules.register("flat")
def flat(optimizer, steps):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
@hrseg.models.register_head("linear")
class Linear(torch.nn.Module):
    def __init__(self, channels: list, num_classes: int, bias: bool = True):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels[0], num_classes, 1, bias=bias)
    def forward(self, features):
        return {"out": self.conv(features[0])}
"""
PAIRS = ["optimizer={name: lion, lr: 0.1}", "schedule=flat", "model.head=linear"]


@pytest.fixture
def parts(tmp_path, forget):
    path = tmp_path / "plugins" / "my_parts.py"
    path.parent.mkdir()
    path.write_text(PLUGIN)
    return path


class Crossed(nn.Module):
    """Backbone whose layers are defined in another order than they are called."""

    channels, strides = (8, 8), (8, 16)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.BatchNorm2d(8))
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 8, 2, stride=2)
        for norm in (self.stem[1], self.norm):
            nn.init.normal_(norm.running_mean)
            nn.init.normal_(norm.weight)

    def forward(self, image):
        fine = self.second(self.norm(self.stem(image)))
        return [fine, self.down(fine)]


@pytest.fixture
def crossed(forget):
    torch.manual_seed(0)
    hrseg.models.register_backbone("crossed")(Crossed)
    model = hrseg.create_model("crossed", num_classes=4, align_corners=True).eval()
    nn.init.normal_(model.head.last_layer[3].weight)
    return model


def test_a_plugin_registers_heads_optimizers_and_schedules(parts, tmp_path):
    load_plugin(str(parts))
    config = load_config("camvid_w18_small", [*PAIRS, "model.head={name: linear, bias: false}"])
    assert (config.optimizer.name, config.optimizer.beta) == ("lion", 0.9)
    assert to_yaml(config).startswith(f"# needs --plugin {parts}\n")
    model = hrseg.create_model("hrnet_w18_small_v1", {"name": "linear", "bias": False}, 2)
    assert model.head.conv.bias is None and model.architecture["head"]["bias"] is False
    task = tiny_task(optimizer={"name": "lion", "lr": 0.1}, schedule="flat")
    trainer = silent_trainer(tmp_path)
    trainer.fit(task, torch.utils.data.DataLoader(noise(), 2))
    assert trainer.optimizers[0].param_groups[0]["momentum"] == 0.9
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["hrseg"]["plugin"] == str(parts)


def test_another_process_loads_a_config_with_parts_of_a_plugin(parts, forget):
    load_plugin(str(parts))
    config = load_config("camvid_w18_small", PAIRS)
    pickled = pickle.dumps(config)
    forget()
    assert to_yaml(pickle.loads(pickled)) == to_yaml(config)


def test_an_existing_name_is_refused(parts):
    load_plugin(str(parts))
    for name, owner in (("fcn", "hrseg itself"), ("linear", "my_parts")):
        with pytest.raises(ConfigError, match=f"{name!r} is registered already, by .*{owner}"):
            hrseg.models.register_head(name)(nn.Module)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("broken.py", "import hrseg\n\nhrseg.losses.LOSSES['x']", "broken.py, line 3: KeyError"),
        ("missing.py", None, "missing.py does not exist"),
        ("bad.py", "import hrseg\n@hrseg.losses.register('bad')\ndef bad(weight): ...",
         "the part 'bad' has a parameter 'weight', which the config uses itself"),
        ("lr.py", "import hrseg\n@hrseg.optimizers.register('bad')\ndef bad(model): ...",
         "the part 'bad' has no parameter 'lr'"),
    ],
)  # fmt: skip
def test_the_error_for_an_invalid_plugin_names_the_file_and_the_reason(
    name, text, message, tmp_path, forget
):
    (tmp_path / "plugins").mkdir()
    if text is not None:
        (tmp_path / "plugins" / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        load_plugin(str(tmp_path / "plugins" / name))
        load_config("camvid_w18_small")
    assert message in str(error.value)


def test_installed_packages_are_imported_only_for_an_unknown_name(parts, monkeypatch):
    groups = []
    point = EntryPoint("parts", "my_parts", "hrseg.plugins")
    monkeypatch.syspath_prepend(parts.parent)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: groups.append(group) or [point]
    )
    load_config("camvid_w18_small")
    assert not groups
    assert to_yaml(load_config("camvid_w18_small", PAIRS)).startswith("# needs --plugin my_parts")
    load_config("camvid_w18_small", PAIRS)
    assert groups == ["hrseg.plugins"]


def test_a_plugin_backbone_is_folded_only_if_the_order_of_its_layers_is_certain(crossed):
    image = torch.randn(1, 3, 64, 96)
    folded = fold(crossed)
    norms = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == ["backbone.norm"]
    torch.testing.assert_close(folded(image), crossed(image), rtol=1e-4, atol=1e-4)


def test_a_plugin_backbone_predicts_large_images_in_tiles(crossed):
    rows = np.random.default_rng(0).integers(0, 255, (200, 168, 3), np.uint8)
    evaluate = Evaluator(crossed, Normalize(), hrseg.Protocol(), align_corners=True)
    bands = predict_bands(evaluate, lambda first, end: rows[first:end], (200, 168), 128, 64)
    tiled = np.concatenate([ids for _, ids in bands])
    assert (tiled == evaluate(batch_of(rows)).pred.numpy()).mean() > 0.9


def test_weights_of_a_plugin_backbone_are_loaded_with_unchanged_names(crossed):
    other = hrseg.create_model("crossed", num_classes=4).eval()
    state = {f"model.{name}": tensor for name, tensor in crossed.state_dict().items()}
    hrseg.load_weights(other, {"state_dict": state})
    assert torch.equal(other.head.last_layer[3].weight, crossed.head.last_layer[3].weight)
    third = hrseg.create_model("crossed", num_classes=7)
    hrseg.load_weights(third, crossed.backbone.state_dict(), purpose="initialise")
    assert torch.equal(third.backbone.stem[0].weight, crossed.backbone.stem[0].weight)
    with pytest.raises(ConfigError, match="contains no HRNet weights"):
        hrseg.load_weights(hrseg.create_model("hrnet_w18_small_v1"), state)


@pytest.mark.parametrize("switch", [{"exchange": "final"}, {"output": "v1"}])
def test_a_backbone_without_a_switch_refuses_its_change(switch, crossed):
    (name,) = switch
    with pytest.raises(ConfigError, match=f"backbone 'crossed' has no argument '{name}'"):
        hrseg.create_model("crossed", **switch)


def test_a_backbone_without_channels_is_refused(forget):
    hrseg.models.register_backbone("bare")(nn.Identity)
    with pytest.raises(ConfigError, match="backbone 'bare' lacks channels, strides or forward"):
        hrseg.create_model("bare")
