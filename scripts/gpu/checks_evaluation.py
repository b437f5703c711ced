"""Evaluation checks: out of memory, and speed against the authors' way."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from checks_golden import drawn_network, tf32_state, use_tf32
from job import Figures, Job, require
from torch import Tensor

from hrseg.benchmark.measure import PeakMemory, timed
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.data.synthetic.scene import generate_scene
from hrseg.inference.evaluator import Evaluator
from hrseg.models import Segmenter
from hrseg.models.normalize import Normalize
from hrseg.models.optimize import inference_network
from tests import golden_weights
from tests.oracles import authors_way

MANY, FEW = 64, 2  # windows at once that do not fit, and that fit on an imitated device
MIB = 2**20
PRECISIONS = {"bf16": "bf16", "float32": "32"}
# Least share of pixels with the class of the authors' way. The drawn weights have many near ties.
SAME_CLASS = {"bf16": 0.95, "float32": 0.99}


def scene(size: tuple[int, int]) -> Tensor:
    """Return a synthetic scene (1, 3, H, W), uint8, on the CPU."""
    return torch.from_numpy(generate_scene(0, 0, size)[0]).permute(2, 0, 1)[None]


def out_of_memory(job: Job) -> Figures:
    """Evaluate with more windows at once than the memory allows; the scores stay the same."""
    use_tf32(False)
    device = torch.device(job.device)
    size, window = ((128, 192), (64, 64)) if job.small else ((1024, 2048), (256, 512))
    protocol = Protocol(window=window, stride=window, flip=True)
    network = inference_network(drawn_network("w18_small_v1").to(device))
    normalize, image = Normalize().to(device), scene(size).to(device)

    def evaluate(batch: int) -> tuple[Evaluator, Tensor, Tensor, float]:
        evaluator = Evaluator(network, normalize, protocol, batch=batch)
        memory = PeakMemory(device)
        result = evaluator(image, keep_scores=True)
        assert result.scores is not None
        peak = memory.read()["peak_mib"] or 0.0
        return evaluator, result.pred.cpu(), result.scores.cpu(), peak

    _, expected, scores, single = evaluate(1)
    largest = evaluate(MANY)[3]
    with limited_memory(job, network, (single + largest) / 2) as limited:
        evaluator = Evaluator(limited, normalize, protocol, batch=MANY)
        with warnings.catch_warnings(record=True, action="always") as messages:
            result = evaluator(image, keep_scores=True)
    assert result.scores is not None
    same = float((result.pred.cpu() == expected).float().mean())
    error = golden_weights.relative_error(result.scores.cpu(), scores.numpy())
    texts = [str(m.message) for m in messages if "out of memory with" in str(m.message)]
    figures: Figures = {
        "windows": MANY, "windows_after": evaluator.batch, "warnings": texts,
        "peak_mib": {"1": single, str(MANY): largest}, "imitated": job.device == "cpu",
        "same_class": same, "score_difference": error,
    }  # fmt: skip
    require(figures, bool(texts), "the memory was not exhausted")
    require(figures, evaluator.batch < MANY, f"still {evaluator.batch} windows at once")
    require(figures, same >= 0.9999, f"the same class only on {same:.3%} of the pixels")
    require(figures, error <= 1e-4, f"the scores differ by {error:.1e}")
    case = "Out of memory in evaluation" + ", imitated" * (job.device == "cpu")
    text = f"{MANY} windows at once become {evaluator.batch}; scores within {error:.1e}"
    figures["rows"] = [[case, text]]
    return figures


@contextmanager
def limited_memory(
    job: Job, network: Callable[[Tensor], Tensor], mib: float
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield the network on a device with a memory of `mib`; a CPU imitates its error."""
    if job.device == "cpu":

        def imitation(image: Tensor) -> Tensor:
            if len(image) > FEW:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return network(image)

        yield imitation
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(mib * MIB / total)
    try:
        yield network
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def evaluation_speed(job: Job) -> Figures:
    """Measure the evaluation with six scales and flip against the authors' way."""
    size = (64, 128) if job.small else (1024, 2048)
    protocol = PROTOCOLS["official_cityscapes"]
    if job.small:
        protocol = protocol.changed(base_size=128, window=size, stride=size)
    figures: Figures = {"size": size, "float32": tf32_state(), "rows": []}
    for variant in ("w18_small_v1",) if job.small else ("w18", "w48"):
        row = _compare(drawn_network(variant).to(job.device), scene(size), protocol, job)
        figures[variant] = row
        for side in PRECISIONS:
            same, rates, memory = (
                row["same_class"][side],
                row["images_per_second"],
                row["memory_mib"],
            )
            message = f"{variant}, {side}: the same class only on {same:.2%}"
            require(figures, same >= SAME_CLASS[side], message)
            figures["rows"].append(
                [
                    f"Six scales with flip, {variant}, {size[0]}x{size[1]}, hrseg in {side} "
                    f"against the authors' way in float32 ({tf32_state()})",
                    f"{rates[side]:.2f} images/s against {rates['authors']:.2f}, "
                    f"{rates[side] / rates['authors']:.2f}x; {memory[side]:,.0f} against "
                    f"{memory['authors']:,.0f} MiB; the same class on {same:.2%}",
                ]
            )
    return figures


def _compare(model: Segmenter, image: Tensor, protocol: Protocol, job: Job) -> Figures:
    """Evaluate an image by each implementation in turn, including both copies of the image."""
    device, rounds = torch.device(job.device), 1 if job.small else 3
    normalize = Normalize().to(device)

    def evaluator(precision: str) -> Callable[[], Tensor]:
        evaluate = Evaluator(inference_network(model, precision), normalize, protocol)
        return lambda: evaluate(image.to(device)).pred.cpu()

    works = {side: evaluator(precision) for side, precision in PRECISIONS.items()}
    works["authors"] = lambda: authors_way.evaluate(model, image.to(device), protocol).cpu()
    seconds: dict[str, list[float]] = {side: [] for side in works}
    memory = dict.fromkeys(works, 0.0)
    ids: dict[str, Tensor] = {}
    for number in range(rounds + 1):  # the first round is the warm-up
        for side, work in works.items():
            torch.backends.cudnn.benchmark = side == "authors"  # the default of each
            peak, measured = PeakMemory(device), seconds[side] if number else []
            with timed(measured, device):
                ids[side] = work()
            memory[side] = max(memory[side], peak.read()["memory_mib"] or 0.0)
    truth = ids.pop("authors")
    return {
        "seconds": seconds,
        "images_per_second": {side: 1 / median(values) for side, values in seconds.items()},
        "memory_mib": memory,
        "same_class": {side: float((x == truth).float().mean()) for side, x in ids.items()},
    }
