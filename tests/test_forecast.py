"""The forecast of memory: against figures measured with `hrseg.measure.PeakMemory`."""

from types import SimpleNamespace

import pytest
import torch

from hrseg.forecast import GIB, forecast, free_bytes, training_bytes
from hrseg.models import create_model

MEASURED = [  # backbone, head, precision, images, crop, twice, MiB at the peak of a step
    ("hrnet_w18", "fcn", "32-true", 2, (256, 512), False, 1081),
    ("hrnet_w18", "fcn", "bf16-mixed", 2, (256, 512), False, 638),
    ("hrnet_w18_small_v1", "fcn", "32-true", 8, (256, 256), False, 835),
    ("hrnet_w48", "fcn", "32-true", 1, (512, 1024), False, 3890),
    ("hrnet_w48", "fcn", "32-true", 1, (512, 1024), True, 2209),
    ("hrnet_w18", "ocr", "32-true", 2, (512, 512), False, 3323),
]


@pytest.mark.parametrize(
    ("backbone", "head", "precision", "images", "crop", "twice", "mib"), MEASURED
)
def test_the_forecast_is_within_a_fifth_of_what_was_measured(
    backbone, head, precision, images, crop, twice, mib
):
    with torch.device("meta"):
        model = create_model(backbone, head=head, num_classes=19)
    model.backbone.recompute = twice
    said = training_bytes(model, images, crop, precision, "sgd") / 2**20
    assert 0.8 < said / mib < 1.2


def test_an_optimiser_that_keeps_more_takes_more_and_a_frozen_backbone_less():
    model = create_model("hrnet_w18_small_v1", num_classes=3)
    sgd, adamw = (training_bytes(model, 1, (64, 64), "32", name) for name in ("sgd", "adamw"))
    assert adamw - sgd == 4 * sum(p.numel() for p in model.parameters())
    model.backbone.requires_grad_(False)
    assert training_bytes(model, 1, (64, 64), "32", "sgd") < sgd / 2


def test_too_little_memory_is_said_with_what_takes_less():
    assert forecast(3 * GIB, 8 * GIB) == "about 3.0 GiB of memory, 8.0 GiB are free"
    assert "too little" in forecast(9 * GIB, 8 * GIB)
    assert "data.batch_size" in forecast(9 * GIB, 8 * GIB)
    assert forecast(GIB, None) == "about 1.0 GiB of memory"


def test_this_machine_tells_what_is_free():
    free = free_bytes(torch.device("cpu"))
    assert free is None or GIB // 16 < free < 2**50
    assert free_bytes(SimpleNamespace(type="mps")) is None
