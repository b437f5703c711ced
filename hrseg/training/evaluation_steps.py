"""Validation, test and prediction steps of SegmentationTask, and their scores."""

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError, DataError
from hrseg.inference.averaging import check_threshold
from hrseg.inference.evaluator import Evaluator, Result
from hrseg.inference.windows import window_pixels
from hrseg.metrics.binary import ThresholdCounts, binary_summary, foreground_id
from hrseg.metrics.calibration import CalibrationCounts, calibration_summary
from hrseg.metrics.confusion import ConfusionMatrix, summarize
from hrseg.metrics.scale_selection import scale_report
from hrseg.models.normalize import Normalize
from hrseg.models.optimize import compiled_for_inference, fold
from hrseg.training.batches import check_images


class EvaluationSteps(pl.LightningModule):
    """Evaluation of images by a protocol.

    `scores` contains the last evaluation in the layout of scores.json. A subclass sets `model`,
    `normalize`, `class_names`, `flip_pairs`, `window_batch` and `compiles`, and calls `score_by`.
    """

    model: Any  # a Segmenter, or the Engine of an exported file
    normalize: Normalize
    class_names: list[str]
    flip_pairs: list[tuple[int, int]]
    window_batch: int
    compiles: bool
    evaluator: Evaluator | None = None
    temperature: float | None = None  # of the checkpoint, after `hrseg calibrate`
    calibration: CalibrationCounts | None  # counted for two classes or on request
    threshold_counts: ThresholdCounts | None  # for two classes
    num_images = 0  # of the current evaluation, including skipped images
    num_skipped = 0  # unreadable images

    def score_by(self, protocol: Protocol, every_subset: bool, num_classes: int) -> None:
        """Set the protocol; with `every_subset`, score all subsets of its scales (at most 8).

        Two classes are also scored by thresholds and calibration.
        """
        check_threshold(protocol, num_classes)
        self.protocol, self.scale_report = protocol, every_subset
        self.scored_scales = _scored_scales(protocol, every_subset)
        self.matrices = nn.ModuleList(ConfusionMatrix(num_classes) for _ in self.scored_scales)
        self.seen_pixels: Counter[float] = Counter()
        self.scores: dict[str, Any] = {}
        self.calibration = self.threshold_counts = None
        if num_classes == 2:
            self.threshold_counts = ThresholdCounts(foreground_id(self.class_names))
            self.score_calibration()

    def score_calibration(self, temperature: float | None = None) -> None:
        """Also score the calibration, with the temperature of the checkpoint if it has one."""
        self.calibration, self.temperature = CalibrationCounts(), temperature

    def on_validation_epoch_start(self) -> None:
        self.evaluator = self._make_evaluator()
        self.seen_pixels.clear()
        self.num_images = self.num_skipped = 0
        for metric in (*self._matrices.values(), self.calibration, self.threshold_counts):
            if metric is not None:
                metric.reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Score a batch of images (B, 3, H, W) with masks.

        Returns:
            "preds", the fused predictions (H, W) of all images, and "pred", the first of them.
        """
        images, masks = batch["image"].split(1), batch["mask"]
        faults = batch.get("fault") or [""] * len(masks)
        preds = [self._score(*item) for item in zip(images, masks, faults, strict=True)]
        return {"pred": preds[0], "preds": preds}

    def _score(self, image: Tensor, mask: Tensor, fault: str) -> Tensor:
        """Score an image (1, 3, H, W); return the fused prediction in the size of the mask."""
        self.num_images += 1
        if fault:
            self.num_skipped += 1
            return torch.zeros_like(mask)
        assert self.evaluator is not None
        result = self.evaluator(
            image,
            mask.shape,
            confidence=self.calibration is not None,
            every_subset=self.scale_report,
        )
        for scales, matrix in self._matrices.items():
            matrix.update(result.preds[scales], mask)
        self._score_confidence(result, mask)
        for scale in self.protocol.scales:
            self.seen_pixels[scale] += window_pixels(image.shape[-2:], scale, self.protocol)
        return result.pred

    def _score_confidence(self, result: Result, mask: Tensor) -> None:
        if self.calibration is not None and result.confidence is not None:
            self.calibration.update(result.confidence, result.pred, mask)
        if self.threshold_counts is not None and result.foreground is not None:
            self.threshold_counts.update(result.foreground, mask)

    def on_validation_epoch_end(self) -> None:
        self._summarize("val")

    def _summarize(self, stage: str) -> None:
        """Compute `scores` from the pixel counts, and log the main ones."""
        assert self.evaluator is not None
        self.window_batch = self.evaluator.batch  # reduced after out of memory
        self.evaluator = None  # frees its copy of the model
        summaries = {
            scales: summarize(matrix.compute(), self.class_names, self.protocol.absent_classes)
            for scales, matrix in self._matrices.items()
        }
        keys = ("miou", "pixel_accuracy", "mean_accuracy", "classes")
        self.scores = dict(summaries[self.protocol.scales])
        self.scores.update(self._confidence_scores())
        self.scores["per_scale"] = {
            str(scale): {key: summaries[(scale,)][key] for key in keys}
            for scale in self.protocol.scales
        }
        if self.scale_report:
            miou = {scales: summary["miou"] or 0.0 for scales, summary in summaries.items()}
            self.scores["scale_report"] = scale_report(miou, self.seen_pixels)
        self.scores["protocol"] = self.protocol.to_dict()
        self.scores["images"], skipped = self._images()
        if skipped:
            self.scores["skipped"] = skipped
            if not self.scores["images"] and not self.trainer.sanity_checking:
                raise DataError(
                    f"None of the {skipped} validation images could be read.\n"
                    "Expected: at least one readable image. Fix: `hrseg data check` lists errors."
                )
        if stage == "val" or self.scores["miou"] is not None:  # a test split may have no masks
            self.log(f"{stage}/miou", self.scores["miou"] or 0.0)
            self.log(f"{stage}/pixel_accuracy", self.scores["pixel_accuracy"] or 0.0)

    def _confidence_scores(self) -> dict[str, Any]:
        """Return `calibration`, and `binary` for two classes, as far as they were counted."""
        scores: dict[str, Any] = {}
        if self.threshold_counts is not None:
            matrix = self._matrices[self.protocol.scales].compute()
            counts, threshold = self.threshold_counts.compute(), self.protocol.threshold
            scores["binary"] = binary_summary(matrix, counts, self.class_names, threshold)
        if self.calibration is not None:
            scores["calibration"] = calibration_summary(self.calibration.compute())
            if self.temperature is not None:
                scores["calibration"]["temperature"] = self.temperature
        return scores

    def _images(self) -> tuple[int, int]:
        """Return the numbers of scored and skipped images of all processes, without repeats."""
        counts = torch.tensor([float(self.num_images), float(self.num_skipped)], device=self.device)
        images, skipped = map(int, self.trainer.strategy.reduce(counts, reduce_op="sum"))
        testing = self.trainer.testing
        loaders = self.trainer.test_dataloaders if testing else self.trainer.val_dataloaders
        loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
        datasets = [loader.dataset for loader in loaders]
        if all(hasattr(dataset, "__len__") for dataset in datasets):
            images = min(images, sum(map(len, datasets)))
        return images - skipped, skipped

    @property
    def _matrices(self) -> dict[tuple[float, ...], ConfusionMatrix]:
        matrices = cast(list[ConfusionMatrix], list(self.matrices))
        return dict(zip(self.scored_scales, matrices, strict=True))

    def _make_evaluator(self) -> Evaluator:
        model = fold(self.model, self._autocast_precision())
        outputs = model.outputs
        # During training the weights change between evaluations, so compilation does not pay off.
        if self.compiles and self.trainer.state.fn != TrainerFn.FITTING:
            outputs = compiled_for_inference(model)
        return Evaluator(
            lambda image: outputs(image)["out"],
            self.normalize,
            self.protocol,
            self.flip_pairs,
            model.align_corners,
            self.window_batch,
            foreground_id(self.class_names),
            self.temperature or 1.0,
        )

    def _autocast_precision(self) -> str:
        """Return the key of PRECISIONS of the Trainer's autocast; "32" without one."""
        try:
            precision = str(self.trainer.precision)
        except RuntimeError:  # not attached to a Trainer
            return "32"
        return precision.removesuffix("-mixed") if precision.endswith("-mixed") else "32"

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Score a batch and return its fused predictions, as in validation."""
        return self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._summarize("test")

    def on_predict_epoch_start(self) -> None:
        self.evaluator = self._make_evaluator()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return class ids (B, H, W), uint8 on the CPU, of uint8 images (B, 3, H, W).

        Args:
            batch: the images, a dict with the key "image", or a tuple that begins with the images.
            batch_idx: not used.
        """
        image = batch["image"] if isinstance(batch, Mapping) else batch
        image = image[0] if isinstance(image, list | tuple) else image
        check_images(image, self.normalize.channels)
        assert self.evaluator is not None
        preds = [self.evaluator(part).pred for part in image.split(1)]
        return torch.stack(preds).to(torch.uint8).cpu()


def _scored_scales(protocol: Protocol, every_subset: bool) -> list[tuple[float, ...]]:
    """Return the scored subsets of the scales: the full set and single scales, or every subset."""
    scales = protocol.scales
    if not every_subset:
        return list(dict.fromkeys([scales, *((scale,) for scale in scales)]))
    if len(scales) > 8:
        raise ConfigError(
            f"inference.scale_report scores every subset: {len(scales)} scales have "
            f"{2 ** len(scales) - 1}.\n"
            "Expected: at most 8 scales. Fix: inference.scale_report=false"
        )
    return [subset for count in range(len(scales)) for subset in combinations(scales, count + 1)]
