"""Checkpoint of an untrained model that predicts several classes."""

import pytorch_lightning as pl
import torch

import hrseg

NAMES = ["road", "car", "tree"]
PALETTE = [(128, 64, 128), (0, 0, 142), (107, 142, 35)]


def save_untrained(path, seed=0):
    torch.manual_seed(seed)
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=len(NAMES))
    torch.nn.init.normal_(model.head.last_layer[-1].weight, std=1.0)
    return save_checkpoint(hrseg.SegmentationTask(model, NAMES, palette=PALETTE), path)


def save_checkpoint(task, path):
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    return path
