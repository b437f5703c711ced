"""Exported files in ONNX Runtime, with the execution providers of the device."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from checks_compile import small_network
from checks_golden import use_tf32
from job import Figures, Job, Skipped, require
from torch import Tensor

from hrseg.benchmark.measure import timed
from hrseg.export.writers import Form, write
from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD


def onnx_runtime(job: Job) -> Figures:
    """Compare an exported file with the network: CUDA provider, or CPU provider on a CPU."""
    return _run(job, "CUDAExecutionProvider" if job.device == "cuda" else "CPUExecutionProvider")


def tensorrt(job: Job) -> Figures:
    """Compare an exported file in ONNX Runtime's TensorRT provider with the network."""
    if job.device == "cpu":
        raise Skipped("TensorRT needs a GPU")
    return _run(job, "TensorrtExecutionProvider")


def _run(job: Job, provider: str) -> Figures:
    use_tf32(False)
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise Skipped(f"not installed: {', '.join(missing)}")
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise Skipped(f"onnxruntime {onnxruntime.__version__} has only {', '.join(available)}")
    name, model = small_network(job)
    path = job.folder / "model.onnx"
    metadata = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    write(model.eval(), path, Form("onnx", "normalized", "head"), metadata, [])
    size = (64, 96) if job.small else (512, 1024)
    image = torch.randn(1, 3, *size)
    run = _session(path, provider)
    logits = run(image)
    device = torch.device(job.device)
    network = model.to(device)
    seconds: list[float] = []
    with torch.inference_mode():
        expected = network.outputs(image.to(device))["out"].cpu()
        for _ in range(10):
            with timed(seconds):
                run(image)
    error = float((logits - expected).abs().max() / expected.abs().max())
    same = float((logits.argmax(1) == expected.argmax(1)).float().mean())
    rate = 1 / median(seconds[1:])
    figures: Figures = {
        "network": name, "size": size, "provider": provider, "relative_error": error,
        "onnxruntime": onnxruntime.__version__, "same_class": same, "images_per_second": rate,
    }  # fmt: skip
    # ONNX Runtime uses TF32 on a GPU by default, like a released application.
    least = 0.9999 if job.device == "cpu" else 0.995
    require(figures, same >= least, f"the same class only on {same:.2%} of the pixels")
    text = f"{rate:.1f} images/s with both copies; within {error:.1e}, the same class on {same:.2%}"
    figures["rows"] = [[f"ONNX Runtime, {provider}, {name}, 1x{size[0]}x{size[1]}", text]]
    return figures


def _session(path: Path, provider: str) -> Callable[[Tensor], Tensor]:
    """Open a file with a provider, and return a function of normalised images on the CPU.

    Raises:
        RuntimeError: ONNX Runtime replaced the provider by another one.
    """
    import onnxruntime

    if provider == "CUDAExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN of the Python packages that torch uses
    session = onnxruntime.InferenceSession(path, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} does not load; ONNX Runtime uses {session.get_providers()}")

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {"image": image.numpy()})[0]))

    return run
