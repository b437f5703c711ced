"""Compilation with torch.compile, and the network of the checks that compile or export."""

import time

import torch
from checks_golden import drawn_network, use_tf32
from job import Figures, Job, Skipped, require
from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.models import Segmenter
from hrseg.models.fcn import FCNHead
from hrseg.models.optimize import (
    check_compiler,
    compiled_for_inference,
    compiled_for_training,
    fold,
)


def torch_compile(job: Job) -> Figures:
    """Compare compiled training steps and inference with eager ones."""
    use_tf32(False)
    name, model = small_network(job)
    try:
        check_compiler(model)
    except ConfigError as error:
        raise Skipped(str(error).partition("\n")[0]) from error
    size = (64, 96) if job.small else (512, 1024)
    image = torch.randn(2, 3, *size, device=job.device)
    mask = torch.randint(0, 19, (2, size[0] // 4, size[1] // 4), device=job.device)
    losses: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for form in ("eager", "compiled"):
        network = small_network(job)[1].to(job.device).train()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        outputs = compiled_for_training(network) if form == "compiled" else network.outputs
        optimizer = torch.optim.SGD(network.parameters(), 0.01)
        losses[form], seconds[form] = [], []
        for _ in range(6):
            start = time.perf_counter()
            loss = nn.functional.cross_entropy(outputs(image)["out"], mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[form].append(float(loss))  # waits for the device
            seconds[form].append(time.perf_counter() - start)
    evaluated = fold(network.eval())
    start = time.perf_counter()
    with torch.inference_mode():
        logits = compiled_for_inference(evaluated)(image)["out"]
        expected = evaluated.outputs(image)["out"]
    logit_error = float((logits - expected).abs().max() / expected.abs().max())
    pairs = zip(losses["compiled"], losses["eager"], strict=True)
    first, *later = (abs(a / b - 1) for a, b in pairs)
    speedup = min(seconds["eager"][1:]) / min(seconds["compiled"][1:])
    figures: Figures = {
        "network": name, "size": size, "tf32": False, "loss_differences": [first, *later],
        "logit_difference": logit_error, "first_step_seconds": seconds["compiled"][0],
        "inference_seconds": time.perf_counter() - start, "step_speedup": speedup,
    }  # fmt: skip
    require(figures, first <= 1e-4, f"the first compiled loss differs by {first:.1e}")
    require(figures, max(later) <= 1e-2, f"compiled losses differ by {max(later):.1e}")
    require(figures, logit_error <= 1e-3, f"compiled logits differ by {logit_error:.1e}")
    text = (
        f"losses of six steps within {max(first, *later):.1e}, logits within {logit_error:.1e}; "
        f"a step {speedup:.2f}x as fast, {seconds['compiled'][0]:.0f} s to compile"
    )
    figures["rows"] = [[f"`torch.compile`, {name}, 2x{size[0]}x{size[1]}, float32", text]]
    return figures


def small_network(job: Job) -> tuple[str, Segmenter]:
    """Return the name and the network of checks that compile or export."""
    torch.manual_seed(0)
    if job.small:
        head = FCNHead([8], num_classes=19)
        model = Segmenter(_Convolution(), head, align_corners=False)
        model.architecture = {"backbone": "one convolution", "head": "fcn", "num_classes": 19}
        return "one convolution", model
    return "W18-small-v1", drawn_network("w18_small_v1")


class _Convolution(nn.Module):
    """Backbone of one convolution, which compiles in seconds on a CPU."""

    channels, strides = (8,), (4,)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.layers(image)]
