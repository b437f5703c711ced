"""Golden figures on a device: logits and training steps of the authors' code."""

import platform
import subprocess
from collections import defaultdict

import numpy as np
import pytorch_lightning
import torch
from job import Figures, Job, require
from torch import nn

from hrseg.benchmark.measure import machine as machine_of
from hrseg.checkpoints.loading import load_weights
from hrseg.losses import OHEM, CrossEntropy
from hrseg.models import Segmenter, create_model
from hrseg.models.optimize import inference_network
from tests import golden_weights
from tests.paths import GOLDEN, ROOT

# Allowed relative error of float32 logits and of the first two training losses, without TF32.
EXACT = 1e-4
# Least share of golden classes, over all networks. On a CPU bf16 gives 99.4 %, float16 99.9 %:
# these logits of drawn weights have many near ties.
SAME_CLASS = {"bf16": 0.98, "16": 0.995}
# Allowed relative error of the five losses. Batch norm over 2x3 maps multiplies rounding errors by
# 50 per step: float64 differs from the golden losses by 2.6e-3.
FIVE_STEPS = 2e-2
NAMES = {"32": "float32", "bf16": "bf16", "16": "float16"}


def use_tf32(enabled: bool) -> None:
    """Allow or forbid TF32 in convolutions and matrix products."""
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


def machine(job: Job) -> Figures:
    """Name the hardware and the versions."""
    if job.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} finds no CUDA device")
    device = torch.device(job.device)
    figures: Figures = {
        **machine_of(device),
        "python": platform.python_version(),
        "pytorch_lightning": pytorch_lightning.__version__,
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
    }
    if job.device == "cuda":
        properties = torch.cuda.get_device_properties(device)
        driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        figures |= {
            "compute_capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": driver,
            "tf32_default": {
                "cudnn": torch.backends.cudnn.allow_tf32,
                "matmul": torch.backends.cuda.matmul.allow_tf32,
            },
        }
    return figures


def golden_logits(job: Job) -> Figures:
    """Compare the logits in each precision with those of the authors' code."""
    use_tf32(False)
    golden = np.load(GOLDEN / "hrnet_logits.npz")
    entries = [key for key in golden.files if not job.small or key.startswith("w18_small")]
    errors: dict[str, list[float]] = defaultdict(list)
    same: dict[str, list[np.ndarray]] = defaultdict(list)
    networks: dict[tuple[str, str], Segmenter] = {}
    for key in entries:
        variant, align, size = key.split("/")
        height, width = map(int, size.split("x"))
        if (variant, align) not in networks:
            networks = {(variant, align): _network(variant, align == "align_True", job.device)}
        image = golden_weights.image(size, height, width).to(job.device)
        for precision in NAMES:
            with torch.inference_mode():
                logits = inference_network(networks[variant, align], precision)(image).float()
            errors[precision].append(golden_weights.relative_error(logits.cpu(), golden[key]))
            same[precision].append(logits.argmax(1).cpu().numpy() == golden[key].argmax(1))
    shares = {name: float(np.concatenate([x.ravel() for x in same[name]]).mean()) for name in NAMES}
    figures: Figures = {
        "logits": len(entries),
        "tf32": False,
        "relative_error": {NAMES[name]: max(errors[name]) for name in NAMES},
        "same_class": {NAMES[name]: share for name, share in shares.items()},
    }
    require(figures, max(errors["32"]) <= EXACT, f"float32 logits differ by {max(errors['32']):.1e}")
    for name, least in SAME_CLASS.items():
        message = f"{NAMES[name]}: {shares[name]:.2%} of the classes, expected {least:.1%}"
        require(figures, shares[name] >= least, message)
    figures["rows"] = [
        [
            f"Golden logits, {len(entries)} cases, {NAMES[name]}{', no TF32' * (name == '32')}",
            f"within {max(errors[name]):.1e} relative; the same class on {shares[name]:.2%}",
        ]
        for name in NAMES
    ]
    return figures


def golden_training(job: Job) -> Figures:
    """Compare five float32 training steps with those of the authors' code."""
    use_tf32(False)
    golden = np.load(GOLDEN / "train.npz")
    losses: dict[str, nn.Module] = {
        "ce": CrossEntropy(),
        "ce_weighted": CrossEntropy(golden_weights.CITYSCAPES_WEIGHTS),
        "ohem": OHEM(threshold=0.9, min_kept=2000),
    }
    figures: Figures = {"tf32": False, "relative_error": {}}
    for name, loss in losses.items():
        values = np.array(_train(loss.to(job.device), job.device))
        errors = np.abs(values / golden[f"{name}/losses"] - 1).tolist()
        figures["relative_error"][name] = errors
        require(figures, max(errors[:2]) <= EXACT, f"{name}: step 2 differs by {errors[1]:.1e}")
        require(figures, max(errors) <= FIVE_STEPS, f"{name}: five steps: {max(errors):.1e}")
    first = max(max(errors[:2]) for errors in figures["relative_error"].values())
    last = max(max(errors) for errors in figures["relative_error"].values())
    figures["rows"] = [
        [
            "Golden training steps, three losses, float32, no TF32",
            f"two steps within {first:.1e} relative, five within {last:.1e} (float64: 2.6e-3)",
        ]
    ]
    return figures


def _network(variant: str, align_corners: bool, device: str) -> Segmenter:
    model = create_model(f"hrnet_{variant}", align_corners=align_corners).eval()
    load_weights(model, golden_weights.official_weights(variant))
    return model.to(device)


def _train(loss: nn.Module, device: str, steps: int = 5) -> list[float]:
    """Train as for the golden file (tests/models/test_segmenter.py), and return the losses."""
    model = create_model("hrnet_w18_small_v2", bn_momentum=0.1).train()
    load_weights(model, golden_weights.official_weights("w18_small_v2"))
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    losses = []
    for step in range(steps):
        image = golden_weights.image(f"train{step}", 64, 96, batch=2).to(device)
        value = loss(model(image), golden_weights.labels(step).to(device))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def _output(*command: str) -> str:
    """Return the first line that a program prints, or "unknown"."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return next(iter(text.splitlines()), "unknown")
