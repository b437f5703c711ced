"""Golden figures on a device: logits and training steps of the authors' code."""

import platform
import subprocess
from collections import defaultdict
from importlib.metadata import version

import numpy as np
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

# Allowed relative error of float32 logits without TF32.
EXACT = 1e-4
# Least share of golden classes, over all networks. On a CPU bf16 gives 99.5 %, float16 99.9 %:
# these logits of drawn weights have many near ties.
SAME_CLASS = {"bf16": 0.98, "16": 0.995}
# Allowed relative errors of the five losses. Batch norm over maps of 2x3 multiplies a rounding
# error by 50 per step: float64 differs by 1.7e-5 at step 2, and by 2.6e-3 at step 5.
LOSS_ERRORS = (1e-4, 1e-3, 2e-2, 2e-2, 2e-2)
NORM_ERROR = 5e-2  # of the norms after five steps; float64: 1.3e-2
NAMES = {"32": "float32", "bf16": "bf16", "16": "float16"}


def use_tf32(enabled: bool) -> None:
    """Allow or forbid TF32 in convolutions and matrix products."""
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


def tf32_state() -> str:
    """Return whether torch uses TF32 in convolutions and matrix products."""
    uses = {
        "convolutions": torch.backends.cudnn.allow_tf32,
        "matrix products": torch.backends.cuda.matmul.allow_tf32,
    }
    names = [name for name, enabled in uses.items() if enabled and torch.cuda.is_available()]
    return f"TF32 in {' and '.join(names)}" if names else "no TF32"


def machine(job: Job) -> Figures:
    """Name the hardware and the versions."""
    if job.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} finds no CUDA device")
    device = torch.device(job.device)
    figures: Figures = {
        **machine_of(device),
        "python": platform.python_version(),
        "pytorch_lightning": version("pytorch-lightning"),
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
            "tf32_default": tf32_state(),
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
    require(
        figures, max(errors["32"]) <= EXACT, f"float32 logits differ by {max(errors['32']):.1e}"
    )
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
    figures: Figures = {"tf32": False, "relative_error": {}, "norm_error": {}}
    for name, loss in losses.items():
        trained = _train(loss.to(job.device), job.device)
        pairs = zip(trained, (golden[f"{name}/losses"], golden[f"{name}/param_norms"]), strict=True)
        errors, norm_errors = (np.abs(np.array(ours) / theirs - 1) for ours, theirs in pairs)
        figures["relative_error"][name] = errors.tolist()
        figures["norm_error"][name] = float(norm_errors.max())
        message = f"{name}: losses differ by {', '.join(f'{error:.1e}' for error in errors)}"
        require(figures, bool((errors <= LOSS_ERRORS).all()), message)
        message = f"{name}: norms differ by {norm_errors.max():.1e}"
        require(figures, bool(norm_errors.max() <= NORM_ERROR), message)
    largest = np.max(list(figures["relative_error"].values()), axis=0)
    figures["rows"] = [
        [
            "Golden training steps, three losses, float32, no TF32",
            f"losses within {', '.join(f'{error:.1e}' for error in largest)} relative at the steps "
            "1 to 5 (float64 on a CPU: 2.6e-3 at step 5)",
        ]
    ]
    return figures


def drawn_network(variant: str) -> Segmenter:
    """Return a network with the drawn weights of the golden figures, which predicts all classes."""
    weights = golden_weights.official_weights(variant)
    weights["last_layer.3.weight"] *= 6
    model = create_model(f"hrnet_{variant}").eval()
    load_weights(model, weights)
    return model


def _network(variant: str, align_corners: bool, device: str) -> Segmenter:
    model = create_model(f"hrnet_{variant}", align_corners=align_corners).eval()
    load_weights(model, golden_weights.official_weights(variant))
    return model.to(device)


def _train(loss: nn.Module, device: str) -> tuple[list[float], list[float]]:
    """Train as for the golden file (tests/models/test_segmenter.py).

    Returns:
        The losses of five steps, and the norms of the state dict after them.
    """
    model = create_model("hrnet_w18_small_v2", bn_momentum=0.1).train()
    load_weights(model, golden_weights.official_weights("w18_small_v2"))
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    losses = []
    for step in range(5):
        image = golden_weights.image(f"train{step}", 64, 96, batch=2).to(device)
        value = loss(model(image), golden_weights.labels(step).to(device))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    state = model.state_dict().items()
    tensors = [tensor for key, tensor in state if not key.endswith("num_batches_tracked")]
    return losses, [tensor.double().norm().item() for tensor in tensors]


def _output(*command: str) -> str:
    """Return the first line that a program prints, or "unknown"."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return next(iter(text.splitlines()), "unknown")
