"""Callbacks for scores: the per-class table, scores.json, and pictures of predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from rich import get_console
from rich.markup import escape
from rich.table import Table

from hrseg.config.protocols import Protocol
from hrseg.utils.files import write_json
from hrseg.utils.text import percent
from hrseg.visualize import colorize, error_map, legend, side_by_side


class ClassScores(Callback):
    """Print the per-class table after each validation, and write `scores.json`.

    While training the file always belongs to the best checkpoint so far: it is written when
    `val/miou` rises.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        """Write into `folder`, by default the trainer's `default_root_dir`."""
        self.folder = folder
        self.best = -1.0

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
        show_scores(scores)
        # In float32, as the checkpoint callback compares.
        miou = float(np.float32(scores["miou"] or 0.0))
        if not fitting or miou > self.best:
            self.write(Path(self.folder or trainer.default_root_dir), scores)
        self.best = max(miou, self.best)

    def write(self, folder: Path, scores: dict[str, Any]) -> None:
        """Write the scores into a folder."""
        write_json(folder / "scores.json", scores)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = float(state_dict["best"])


def show_scores(scores: Mapping[str, Any]) -> None:
    """Print the summary and the per-class table of `scores` (the layout of scores.json)."""
    get_console().print(_summary(scores), highlight=False, markup=False, soft_wrap=True)
    get_console().print(_table(scores))
    if "scale_report" in scores:
        get_console().print(_scale_table(scores["scale_report"]))


def _table(scores: Mapping[str, Any]) -> Table:
    """Return IoU and accuracy per class, fused and, if there are several, of each scale alone.

    Of more than three scales only the IoU, which is what fits on a screen.
    """
    per_scale = scores.get("per_scale", {})
    blocks = [("", scores), *(per_scale.items() if len(per_scale) > 1 else ())]
    columns = [(label, block, "iou") for label, block in blocks]
    columns[1:1] = [("", scores, "accuracy")]
    if len(blocks) < 5:
        columns = [(*block, key) for block in blocks for key in ("iou", "accuracy")]
    table = Table("class", padding=(0, 0) if len(columns) > 4 else (0, 1))
    for label, _, key in columns:
        name = "IoU" if key == "iou" else "acc"
        table.add_column(f"{name}\nx{label}" if label else name, justify="right")
    table.add_column("pixels", justify="right")
    total = sum(row["pixels"] for row in scores["classes"])
    for index, row in enumerate(scores["classes"]):
        values = [percent(block["classes"][index][key]) for _, block, key in columns]
        table.add_row(escape(row["name"]), *values, f"{100 * row['pixels'] / (total or 1):.2f} %")
    table.add_section()
    mean_of = {"iou": "miou", "accuracy": "mean_accuracy"}
    means = [percent(block[mean_of[key]]) for _, block, key in columns]
    table.add_row("mean", *means, f"{total:,}", style="bold")
    pixels = [
        percent(block["pixel_accuracy"]) if key == "accuracy" else "" for _, block, key in columns
    ]
    table.add_row("all pixels", *pixels)
    return table


def _scale_table(report: Mapping[str, Any]) -> Table:
    """Return what each prefix of the scales scores and costs, and the cheapest that is enough."""
    table = Table("scales", title="which scales are enough", title_justify="left")
    table.add_column("mIoU", justify="right")
    table.add_column("cost", justify="right")
    for row, style in [*((row, "") for row in report["prefixes"]), (report["cheapest"], "bold")]:
        if style:
            table.add_section()
        scales = ", ".join(f"{scale:g}" for scale in row["scales"])
        note = "  (cheapest within 0.1 point)" * bool(style)
        cells = (scales + note, percent(row["miou"]), f"{100 * row['cost']:.0f} %")
        table.add_row(*cells, style=style)
    return table


class PredictionImages(Callback):
    """Write image | truth | prediction | errors of a fixed sample of images as PNG.

    TensorBoard, where it is a logger, gets them too, step by step.
    """

    def __init__(self, count: int = 4, folder: str | Path | None = None) -> None:
        """Take `count` evenly spaced images; write below `folder`, by default the run folder."""
        self.count = count
        self.folder = folder

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        total = int(sum(trainer.num_val_batches))
        wanted = {round(i * (total - 1) / max(1, self.count - 1)) for i in range(self.count)}
        if batch_idx not in wanted or any(batch.get("fault", ())):
            return
        image = batch["image"][0].permute(1, 2, 0).cpu().numpy()
        truth = batch["mask"][0].cpu().numpy().astype(np.uint8)
        pred = outputs["pred"].cpu().numpy().astype(np.uint8)
        palette = cast(list[list[int]], pl_module.palette)
        panels = [image, colorize(truth, palette), colorize(pred, palette), error_map(truth, pred)]
        row = side_by_side(panels, ["image", "truth", "prediction", "errors"])
        names = legend(cast(list[str], pl_module.class_names), palette, row.shape[1])
        folder = Path(self.folder or trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        picture, name = np.vstack([row, names]), Path(batch["name"][0]).name
        Image.fromarray(picture).save(folder / f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                board = logger.experiment
                board.add_image(f"val/{name}", picture, trainer.global_step, dataformats="HWC")


def _summary(scores: Mapping[str, Any]) -> str:
    protocol = scores.get("protocol", {})
    parts = [
        f"mIoU {percent(scores['miou'])}",
        f"pixel accuracy {percent(scores['pixel_accuracy'])}",
    ]
    if protocol:
        parts.append(str(Protocol(**protocol)))
    if "epoch" in scores:
        parts.insert(0, f"epoch {scores['epoch'] + 1}")
    return "   ".join(parts)
