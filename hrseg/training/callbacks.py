"""Callbacks for scores (per-class table, scores.json) and for pictures of predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from rich import get_console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from hrseg.config.protocols import Protocol
from hrseg.utils.channels import as_picture
from hrseg.utils.console import echo, number_table
from hrseg.utils.files import write_json
from hrseg.utils.text import one_line, percent
from hrseg.visualize import colorize, error_map, legend, side_by_side


class ClassScores(Callback):
    """Print the scores of each validation, and write `scores.json`.

    During training, the per-class table is printed only after the first and the last validation,
    and `scores.json` is written only if `val/miou` rises; it belongs to the best checkpoint.

    Args:
        folder: folder of `scores.json`; by default the trainer's `default_root_dir`.

    Examples:
        >>> import pytorch_lightning as pl
        >>> trainer = pl.Trainer(max_epochs=1, logger=False, callbacks=[ClassScores("runs/a")])
        >>> [c.folder for c in trainer.callbacks if isinstance(c, ClassScores)]
        ['runs/a']
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self.best = -1.0
        self.table_shown = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # scores.json belongs to the best checkpoint, which may be newer than the resumed state.
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor == "val/miou":
                best = callback.best_model_score
                self.best = -1.0 if best is None else float(best)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        scores = dict(pl_module.scores)  # type: ignore[arg-type]
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting:
            scores["epoch"], scores["step"] = trainer.current_epoch, trainer.global_step
        last = trainer.current_epoch + 1 == trainer.max_epochs
        show_scores(scores, table=not fitting or last or not self.table_shown)
        self.table_shown = True
        # In float32, as in the comparison of the checkpoint callback.
        miou = float(np.float32(scores["miou"] or 0.0))
        if not fitting or miou > self.best:
            self.write(Path(self.folder or trainer.default_root_dir), scores)
        self.best = max(miou, self.best)

    def write(self, folder: Path, scores: dict[str, Any]) -> None:
        write_json(folder / "scores.json", scores)


_SHORT = {"iou": "IoU", "accuracy": "acc"}
_ABSENT = {"skipped": "mean without absent classes", "zero": "mean with absent classes as 0"}


def show_scores(scores: Mapping[str, Any], table: bool = True) -> None:
    """Print the summary and the tables of `scores` (the layout of scores.json)."""
    parts = [f"epoch {scores['epoch'] + 1}"] if "epoch" in scores else []
    parts.append(f"mIoU {percent(scores['miou'])}")
    parts.append(f"pixel accuracy {percent(scores['pixel_accuracy'])}")
    if scores.get("protocol"):
        parts.append(str(Protocol(**scores["protocol"])))
    elif "absent_classes" in scores:
        parts.append(_ABSENT[scores["absent_classes"]])
    echo("   ".join(parts))
    if not table:
        return
    console, class_table = get_console(), _table(scores)
    options = console.options.update(max_width=10_000)
    width = Measurement.get(console, options, class_table).maximum
    if console.is_terminal and width > console.width:
        class_table = _table(scores, narrow=True)
    console.print(class_table)
    for line in _confidence_lines(scores):
        echo(line)
    if "scale_report" in scores:
        console.print(_scale_table(scores["scale_report"]))


def _confidence_lines(scores: Mapping[str, Any]) -> list[str]:
    """Return the scores of the foreground of two classes, and the calibration error."""
    lines = []
    if binary := scores.get("binary"):
        best = binary["best"]
        line = (
            f"{one_line(binary['foreground'])} at threshold {binary['threshold']:g}: precision "
            f"{percent(binary['precision'])}, recall {percent(binary['recall'])}, Dice "
            f"{percent(binary['dice'])}"
        )
        if best:
            line += f"; best Dice {percent(best['dice'])} at threshold {best['threshold']:g}"
        lines.append(line)
    if calibration := scores.get("calibration"):
        lines.append(f"calibration error {percent(calibration['ece'])}")
    return lines


def _table(scores: Mapping[str, Any], narrow: bool = False) -> Table:
    """Return a table of IoU and accuracy per class, fused and per scale.

    For four scales or more, the columns per scale contain only the IoU. A `narrow` table contains
    only the fused IoU and fits into 40 columns.
    """
    per_scale = scores.get("per_scale", {})
    blocks = [("", scores), *(per_scale.items() if len(per_scale) > 1 else ())]
    columns = [
        (label, block, key)
        for label, block in blocks
        for key in ("iou", "accuracy")
        if key == "iou" or not label or len(blocks) < 5
    ]
    columns = columns[: 1 if narrow else None]
    titles = [_SHORT[key] + f"\nx{label}" * bool(label) for label, _, key in columns]
    padding = (0, 0) if len(columns) > 4 else (0, 1)
    table = number_table("class", *titles, "pixels", padding=padding)
    total = sum(row["pixels"] for row in scores["classes"])
    for index, row in enumerate(scores["classes"]):
        values = [percent(block["classes"][index][key]) for _, block, key in columns]
        table.add_row(escape(row["name"]), *values, f"{100 * row['pixels'] / (total or 1):.2f} %")
    table.add_section()
    mean_of = {"iou": "miou", "accuracy": "mean_accuracy"}
    means = [percent(block[mean_of[key]]) for _, block, key in columns]
    table.add_row("mean", *means, f"{total:,}", style="bold")
    pixels = [percent(x["pixel_accuracy"]) if key == "accuracy" else "" for _, x, key in columns]
    table.add_row("all pixels", *pixels)
    return table


def _scale_table(report: Mapping[str, Any]) -> Table:
    table = number_table("scales", "mIoU", "cost", title="scale selection", title_justify="left")
    notes = ["" for _ in report["prefixes"]] + ["  (cheapest within 0.1 point)"]
    for row, note in zip([*report["prefixes"], report["cheapest"]], notes, strict=True):
        if note:
            table.add_section()
        scales = ", ".join(f"{scale:g}" for scale in row["scales"])
        cells = (scales + note, percent(row["miou"]), f"{100 * row['cost']:.0f} %")
        table.add_row(*cells, style="bold" if note else "")
    return table


class PredictionImages(Callback):
    """Write pictures of image, truth, prediction and errors to `predictions/` and TensorBoard.

    Args:
        count: number of validation images.
        folder: parent of `predictions/`; by default the trainer's `default_root_dir`.
    """

    def __init__(self, count: int = 4, folder: str | Path | None = None) -> None:
        self.count = count
        self.folder = folder

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        total = int(sum(trainer.num_val_batches))
        selected = {round(i * (total - 1) / max(1, self.count - 1)) for i in range(self.count)}
        if batch_idx not in selected or any(batch.get("fault", ())):
            return
        pixels = batch["image"][0].permute(1, 2, 0).cpu().numpy()
        image = as_picture(pixels, pl_module.normalize.channels)
        truth = batch["mask"][0].cpu().numpy().astype(np.uint8)
        pred = outputs["pred"].cpu().numpy().astype(np.uint8)
        palette = pl_module.palette
        panels = [image, colorize(truth, palette), colorize(pred, palette), error_map(truth, pred)]
        row = side_by_side(panels, ["image", "truth", "prediction", "errors"])
        names = legend(pl_module.class_names, palette, row.shape[1])
        folder = Path(self.folder or trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        picture, name = np.vstack([row, names]), Path(batch["name"][0]).name
        Image.fromarray(picture).save(folder / f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                step = trainer.global_step
                logger.experiment.add_image(f"val/{name}", picture, step, dataformats="HWC")
