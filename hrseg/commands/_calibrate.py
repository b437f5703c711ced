"""Temperature scaling of a checkpoint on sampled pixels: the work of `hrseg calibrate`."""

from pathlib import Path

import torch
from torch import Tensor

from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import locked_run
from hrseg.config.loader import to_dict
from hrseg.config.protocols import make_protocol
from hrseg.config.schema import Config
from hrseg.data.dataset import SegmentationDataset
from hrseg.errors import DataError
from hrseg.inference.averaging import check_threshold, probabilities
from hrseg.inference.evaluator import Evaluator
from hrseg.inference.predictor import load
from hrseg.metrics.calibration import (
    CalibrationCounts,
    calibration_summary,
    fit_temperature,
    negative_log_likelihood,
)
from hrseg.training.checkpointing import DurableCheckpointIO
from hrseg.training.factory import build_data
from hrseg.utils.console import echo, track
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.text import percent

PIXELS = 20_000  # sampled pixels per image, at most
_VALUES = 2**26  # sampled probabilities of all images, at most: 256 MiB


def calibrate(config: Config, checkpoint: Path, run: Path, device: str | None) -> float:
    """Fit one temperature, store it in the checkpoint, print the effect, and return it.

    Args:
        config: of the run; its protocol makes the probabilities.
        checkpoint: a file of the run; it is replaced atomically.
        run: the run folder, which is locked meanwhile.
        device: of the model; None: cuda if available, or else cpu.

    Raises:
        ConfigError: weights without metadata, or a training that writes into the run.
        DataError: no labelled pixel in the validation split.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with locked_run(run):
        data = build_data(config)
        data.check("validate")
        predictor = load(checkpoint, device)
        protocol = make_protocol(config.inference.protocol, to_dict(config.inference))
        check_threshold(protocol, data.num_classes)
        evaluator = predictor.with_protocol(**dict(protocol)).evaluator
        dataset = data.dataset(data.val_split)
        echo(f"calibrate {checkpoint} on {len(dataset)} images of {data.val_split}; {protocol}")
        logits, truth = sample_logits(evaluator, dataset, config.seed, device)
        temperature = fit_temperature(logits, truth)
        content = read_checkpoint(checkpoint)
        content["hrseg"]["temperature"] = temperature
        DurableCheckpointIO().save_checkpoint(content, checkpoint)
    for name, value in (("before", 1.0), ("after", temperature)):
        error, loss = _error(logits, truth, value), negative_log_likelihood(logits, truth, value)
        echo(f"{name}: calibration error {percent(error)} %, negative log-likelihood {loss:.4f}")
    echo(f"temperature {temperature:.3f}: {checkpoint}")
    return temperature


def sample_logits(
    evaluator: Evaluator, dataset: SegmentationDataset, seed: int, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N, K) and true ids (N,) of random labelled pixels.

    Args:
        evaluator: the model and its protocol.
        dataset: images with masks.
        seed: of the choice of at most PIXELS pixels per image.
        device: of the model.

    Raises:
        DataError: no labelled pixel.
    """
    random = torch.Generator().manual_seed(seed)
    protocol = evaluator.protocol
    logits, truths = [], []
    for index in track(range(len(dataset)), len(dataset), "images"):
        image, mask = dataset.read(index)
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
        scores = evaluator(batch, mask.shape, keep_scores=True).scores
        assert scores is not None
        classes = scores.shape[1]
        truth = torch.from_numpy(mask).flatten()
        labelled = (truth != IGNORE_INDEX).nonzero()[:, 0]
        limit = min(PIXELS, max(1, _VALUES // (classes * len(dataset))))
        chosen = labelled[torch.randperm(len(labelled), generator=random)[:limit]]
        columns = scores.reshape(1, classes, 1, -1)[..., chosen.to(device)]
        shares = probabilities(columns, protocol.average, len(protocol.scales))
        smallest = torch.finfo(shares.dtype).tiny
        logits.append(shares[0, :, 0].T.clamp_min(smallest).log().cpu())
        truths.append(truth[chosen])
    if not sum(map(len, truths)):
        raise DataError(
            "The validation split has no labelled pixel.\n"
            "Expected: masks with class ids. Fix: data.val_split=NAME"
        )
    return torch.cat(logits).clone(), torch.cat(truths)


def _error(logits: Tensor, truth: Tensor, temperature: float) -> float:
    """Return the expected calibration error of the most probable class."""
    confidence, ids = (logits / temperature).softmax(1).max(1)
    counts = CalibrationCounts()
    counts.update(confidence, ids, truth)
    return float(calibration_summary(counts.compute())["ece"])
