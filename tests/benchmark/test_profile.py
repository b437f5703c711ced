"""`hrseg benchmark model --profile`: groups of operators, table and advice."""

import json

import pytest
import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent

import hrseg
from hrseg.benchmark.model import inference, train_step
from hrseg.benchmark.operators import grouped
from hrseg.benchmark.profile import advice, check_device, profiled, show
from hrseg.cli import main
from hrseg.config.loader import load_config
from hrseg.errors import ConfigError

CUDA = torch.device("cuda").type


def event(name, start, end, *children, kernel=0.0):
    """Return a profiler event that lasts from `start` to `end` us and starts a kernel."""
    parent = FunctionEvent(0, name, 0, start, end, use_device=CUDA)
    for child in children:
        parent.append_cpu_child(child)
        child.set_cpu_parent(parent)
    if kernel:
        parent.append_kernel("kernel", 0, kernel)
    return parent


def with_children(*events):
    for parent in events:
        yield parent
        yield from with_children(*parent.cpu_children)


def step():
    """Return a step of 1000 us whose times are added up by hand in the tests."""
    engine = "autograd::engine::evaluate_function: ConvolutionBackward0"
    convolution = event(
        "aten::conv2d", 0, 300,
        event("aten::to", 0, 50, event("aten::_to_copy", 0, 50, event("aten::copy_", 10, 40))),
        event("aten::cudnn_convolution", 50, 300, event("aten::empty", 50, 60), kernel=80),
    )  # fmt: skip
    addition = event("aten::add", 300, 400, kernel=20)
    backward = event(
        engine, 400, 700,
        event("ConvolutionBackward0", 400, 600,
            event("aten::convolution_backward", 410, 600, kernel=100)),
        event("aten::add_", 600, 660, kernel=10),
    )  # fmt: skip
    optimizer = event(
        "Optimizer.step#SGD.step", 700, 900,
        event("aten::_foreach_add_", 750, 850, event("aten::add_", 760, 800)),
        event("aten::_fused_sgd_", 850, 900,
            event("aten::contiguous", 850, 870, event("aten::clone", 850, 870))),
    )  # fmt: skip
    other = event("aten::index", 900, 910)
    parts = (convolution, addition, backward, optimizer, other)
    return event("ProfilerStep*", 0, 1000, *parts)


def test_the_time_of_an_operator_excludes_its_callees_of_other_groups():
    result = grouped(with_children(step()), steps=1, on_gpu=False)
    assert result["seconds_per_step"] == pytest.approx(1000e-6)
    rows = {row["group"]: (row["seconds_per_step"] * 1e6, row["calls"]) for row in result["groups"]}
    assert rows == {
        "convolution": (pytest.approx(250), 1),  # 300 without the conversion of 50
        "convolution, backward": (pytest.approx(190), 1),
        "optimizer": (pytest.approx(100 + 30), 2),  # its additions count, its layout copy does not
        "additions": (pytest.approx(100), 1),
        "additions, backward": (pytest.approx(60), 1),
        "type conversions": (pytest.approx(50), 1),
        "layout copies": (pytest.approx(20), 1),
        "other operators": (pytest.approx(10), 1),
        # 90 after the operators, 50 of Optimizer.step, 40 + 10 of the autograd engine
        "outside of operators": (pytest.approx(190), 0),
    }
    assert list(rows)[:2] == ["convolution", "convolution, backward"]
    assert sum(row["share"] for row in result["groups"]) == pytest.approx(1)


def test_on_a_gpu_the_time_is_that_of_the_kernels_and_the_rest_is_waiting():
    kernel = FunctionEvent(0, "kernel", 0, 60, 140, device_type=torch.autograd.DeviceType.CUDA)
    steps = [*with_children(step()), kernel, *with_children(step())]
    result = grouped(steps, steps=2, on_gpu=True)
    shares = {row["group"]: row["share"] for row in result["groups"] if row["share"]}
    assert shares == {
        "convolution, backward": pytest.approx(0.1),
        "convolution": pytest.approx(0.08),
        "additions": pytest.approx(0.02),
        "additions, backward": pytest.approx(0.01),
        "outside of operators": pytest.approx(0.79),
    }
    first = result["groups"][0]
    assert first["seconds_per_step"] == pytest.approx(100e-6)
    assert first["cpu_seconds_per_step"] == pytest.approx(190e-6)
    assert result["groups"][-1]["cpu_seconds_per_step"] == pytest.approx(190e-6)
    rates = {"convolution_flops_per_second": None, "large_convolution_flops_per_second": 1.0}
    [line] = advice({**result, **rates}, compiled=False)
    assert (
        line
        == "79 % of the step the GPU waits for Python: try model.compile=true or a larger batch."
    )


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("aten::mkldnn_convolution", "convolution"),
        ("aten::_slow_conv2d_forward", "convolution"),
        ("mkldnn::_convolution_pointwise", "convolution"),
        ("aten::cudnn_batch_norm", "batch norm"),
        ("aten::cudnn_batch_norm_backward", "batch norm"),
        ("aten::threshold_backward", "ReLU"),
        ("aten::upsample_nearest2d", "upsampling"),
        ("aten::nll_loss2d_forward", "softmax, loss"),
        ("aten::_amp_foreach_non_finite_check_and_unscale_", "optimizer"),
        ("aten::_fused_adamw_", "optimizer"),
        ("triton_poi_fused_relu_3", "compiled kernels"),
        ("## Call CompiledFxGraph fim345 ##", "compiled kernels"),
        ("aten::resolve_conj", "other operators"),
    ],
)
def test_operators_of_all_backends_have_a_group(name, group):
    events = with_children(event("ProfilerStep*", 0, 10, event(name, 0, 10)))
    assert grouped(events, 1, on_gpu=False)["groups"][0]["group"] == group


def small(*overrides):
    config = load_config("camvid_w18_small", ["data.root=/nowhere", *overrides])
    config.data.crop_size, config.data.batch_size = (64, 64), 2
    return config


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_training_step_has_the_operators_of_the_network(precision):
    result = profiled(train_step, small(), precision, 2, macs=1)
    rows = {row["group"]: row for row in result["groups"]}
    modules = list(hrseg.create_model("hrnet_w18_small_v1").modules())
    convolutions = sum(isinstance(module, nn.Conv2d) for module in modules)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in modules)
    assert rows["convolution"]["calls"] == convolutions
    assert rows["convolution, backward"]["calls"] == convolutions
    assert rows["batch norm"]["calls"] == rows["batch norm, backward"]["calls"] == norms
    assert ("type conversions" in rows) and {"ReLU", "upsampling", "optimizer"} <= set(rows)
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    named = 1 - rows["outside of operators"]["share"]
    assert rows["other operators"]["share"] < 0.05 * named
    assert result["steps"] == 2 and result["precision"] == precision


def test_inference_has_no_backward_pass_and_few_batch_norms():
    result = profiled(inference, small(), "32", 1, macs=1)
    names = {row["group"] for row in result["groups"]}
    assert {"convolution", "additions", "upsampling"} <= names
    assert not [name for name in names if "backward" in name or name == "optimizer"]
    assert "batch norm" not in names  # folded into the convolutions


def test_the_command_prints_and_writes_the_profile(here, tmp_path, capsys):
    out = tmp_path / "model.json"
    options = [
        "--size",
        "64",
        "64",
        "--batch",
        "1",
        "--steps",
        "1",
        "--profile",
        "--json",
        str(out),
    ]
    config = ["--config", "camvid_w18_small", "data.root=/nowhere", "trainer.precision=32-true"]
    assert main(["benchmark", "model", *config, *options]) == 0
    result = json.loads(out.read_text())
    assert result["profile"]["train_step"]["precision"] == "32-true"
    assert result["profile"]["inference"]["precision"] == "32"
    printed = capsys.readouterr().out
    for work, profile in result["profile"].items():
        assert f"{work.replace('_', ' ')}, precision 32" in printed
        keys = {"group", "meaning", "seconds_per_step", "share", "calls"}
        assert all(set(row) == keys for row in profile["groups"])
        seconds = sum(row["seconds_per_step"] for row in profile["groups"])
        assert seconds == pytest.approx(profile["seconds_per_step"])
        assert profile["large_convolution_flops_per_second"] > 0
    assert max(map(len, printed.splitlines()[4:])) <= 110 and "…" not in printed


def shares(rate=1.0, **groups):
    names = {"outside": "outside of operators", "conversions": "type conversions"}
    rows = [
        {"group": names.get(name, name.replace("_", " ")), "share": share, "meaning": "",
         "seconds_per_step": share, "calls": 1}
        for name, share in groups.items()
    ]  # fmt: skip
    rates = {"convolution_flops_per_second": rate, "large_convolution_flops_per_second": 10.0}
    return {"groups": rows, "seconds_per_step": 1, "precision": "32", **rates}


@pytest.mark.parametrize(
    ("profile", "compiled", "expected"),
    [
        (shares(convolution=0.8, outside=0.2), False, []),
        (shares(8, convolution=0.8, outside=0.2), False, ["80 % are convolutions, at 80 %"]),
        (shares(batch_norm=0.2, ReLU=0.1, outside=0.2), False, ["30 % are steps between"]),
        (shares(batch_norm=0.2, ReLU=0.1, outside=0.2), True, []),
        (shares(conversions=0.12, outside=0.2), False, ["12 % are type conversions"]),
        (shares(optimizer=0.2, outside=0.7), False, ["70 % is Python", "20 % is the optimizer"]),
    ],
)
def test_advice_follows_from_the_shares(profile, compiled, expected):
    lines = advice(profile, compiled)
    assert len(lines) == len(expected)
    assert all(line.startswith(text) for line, text in zip(lines, expected, strict=True))


def test_small_groups_are_added_up_in_the_table(here, capsys):
    groups = {f"group_{number:02}": 0.05 for number in range(14)}
    show("train step", shares(None, **groups, other_operators=0.1, outside=0.2), compiled=False)
    printed = capsys.readouterr().out
    [rest] = [line for line in printed.splitlines() if "everything else" in line]
    assert "30.0 %" in rest and "300.0" in rest and " 5 " in rest  # four groups and the others
    assert "group 09" in printed and "group 10" not in printed and "GFLOP/s" not in printed


def test_other_devices_are_refused():
    check_device(torch.device("cuda"))
    with pytest.raises(ConfigError, match=r"device mps\.\nExpected: .*Fix: trainer\.accelerator"):
        check_device(torch.device("mps"))
