"""Memory forecast, compared with measurements by `hrseg.benchmark.measure.PeakMemory`."""

from functools import lru_cache

import pytest

from hrseg.models import create_model
from hrseg.training.preflight import GIB, forecast, training_bytes

MEASURED = [  # backbone, head, images, crop, recompute, peak MiB of a step in float32 and bf16
    ("hrnet_w18_small_v1", "fcn", 4, (256, 512), False, 805, 489),
    ("hrnet_w18_small_v1", "fcn", 8, (256, 256), False, 835, None),
    ("hrnet_w18_small_v2", "fcn", 3, (200, 300), False, 492, 302),
    ("hrnet_w18", "fcn", 2, (256, 512), False, 1136, 632),
    ("hrnet_w48", "fcn", 1, (256, 512), False, 1624, 1330),
    ("hrnet_w48", "fcn", 2, (384, 384), False, 2706, 1855),
    ("hrnet_w48", "fcn", 1, (512, 1024), False, 3890, None),
    ("hrnet_w48", "fcn", 1, (512, 1024), True, 2209, None),
    ("hrnet_w18_small_v1", "ocr", 4, (256, 512), False, 1932, 1079),
    ("hrnet_w18", "ocr", 2, (256, 512), False, 1712, 1019),
    ("hrnet_w18", "ocr", 2, (512, 512), False, 3323, None),
    ("hrnet_w48", "ocr", 1, (256, 512), False, 1950, 1490),
]


@lru_cache(maxsize=2)
def network(backbone, head):
    return create_model(backbone, head=head, num_classes=19)


@pytest.mark.parametrize(
    ("backbone", "head", "images", "crop", "recompute", "full", "half"), MEASURED
)
def test_the_forecast_is_within_20_percent_of_measurements(
    backbone, head, images, crop, recompute, full, half
):
    model = network(backbone, head)
    model.backbone.recompute = recompute
    for precision, mib in {"32-true": full, "bf16-mixed": half}.items():
        if mib is not None:
            predicted = training_bytes(model, images, crop, precision, "sgd") / 2**20
            assert 0.8 < predicted / mib < 1.2


def test_too_little_memory_is_reported_with_settings_that_need_less():
    assert forecast(3 * GIB, 8 * GIB) == "about 3.0 GiB needed, 8.0 GiB free"
    assert "too little" in forecast(9 * GIB, 8 * GIB)
    assert "data.batch_size" in forecast(9 * GIB, 8 * GIB)
    assert forecast(GIB, None) == "about 1.0 GiB needed"
