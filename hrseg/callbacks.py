"""What a run writes while it goes: scores per class, pictures."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from rich import get_console
from rich.markup import escape
from rich.table import Table

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

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show and write the scores that the task has just computed."""
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
            write_json(Path(self.folder or trainer.default_root_dir) / "scores.json", scores)
        self.best = max(miou, self.best)

    def state_dict(self) -> dict[str, Any]:
        """Remember the best mIoU for a resumed run."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best mIoU of the run that is resumed."""
        self.best = float(state_dict["best"])


def show_scores(scores: Mapping[str, Any]) -> None:
    """Print the summary and the per-class table of `scores` (the layout of scores.json)."""
    get_console().print(_summary(scores), highlight=False, soft_wrap=True)
    get_console().print(_table(scores))


def _table(scores: Mapping[str, Any]) -> Table:
    """Return IoU and accuracy per class, fused and, if there are several, of each scale alone."""
    per_scale = scores.get("per_scale", {})
    blocks = [scores, *(per_scale.values() if len(per_scale) > 1 else ())]
    table = Table()
    table.add_column("class")
    for label in ("", *(f" x{scale}" for scale in per_scale))[: len(blocks)]:
        table.add_column(f"IoU{label}", justify="right")
        table.add_column(f"acc{label}" if label else "accuracy", justify="right")
    table.add_column("pixels", justify="right")
    total = sum(row["pixels"] for row in scores["classes"])
    for index, row in enumerate(scores["classes"]):
        cells = [block["classes"][index] for block in blocks]
        values = [_percent(cell[key]) for cell in cells for key in ("iou", "accuracy")]
        table.add_row(escape(row["name"]), *values, f"{100 * row['pixels'] / (total or 1):.2f} %")
    table.add_section()
    means = [_percent(block[key]) for block in blocks for key in ("miou", "mean_accuracy")]
    table.add_row("mean", *means, f"{total:,}", style="bold")
    pixels = [cell for block in blocks for cell in ("", _percent(block["pixel_accuracy"]))]
    table.add_row("all pixels", *pixels)
    return table


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(partial, path)


class PredictionImages(Callback):
    """Write image | truth | prediction | errors of a fixed sample of images as PNG."""

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
        """Draw the image if it belongs to the sample."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        total = int(sum(trainer.num_val_batches))
        wanted = {round(i * (total - 1) / max(1, self.count - 1)) for i in range(self.count)}
        if batch_idx not in wanted:
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
        picture = Image.fromarray(np.vstack([row, names]))
        picture.save(folder / f"{Path(batch['name'][0]).name}.png")


def _summary(scores: Mapping[str, Any]) -> str:
    protocol = scores.get("protocol", {})
    parts = [
        f"mIoU {_percent(scores['miou'])}",
        f"pixel accuracy {_percent(scores['pixel_accuracy'])}",
    ]
    if protocol:
        scales = ", ".join(f"{scale:g}" for scale in protocol["scales"])
        parts.append(f"{protocol['name']}: scales {scales}{', flip' * protocol['flip']}")
    if "epoch" in scores:
        parts.insert(0, f"epoch {scores['epoch'] + 1}")
    return "   ".join(parts)


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.2f}"
