import math

import numpy as np
import pytest
import torch

from hrseg.checkpoints.loading import load_weights
from hrseg.models import create_model
from hrseg.models.ocr import OCRHead, gather
from tests.golden_weights import GOLDEN, image, official_weights, relative_error

LOGITS = np.load(GOLDEN / "ocr_logits.npz")


@pytest.mark.parametrize("variant", ["w18_small_v2", "w48"])
def test_both_outputs_equal_those_of_the_authors_code(variant):
    model = create_model(f"hrnet_{variant}", head="ocr").eval()
    load_weights(model, official_weights(f"{variant}+ocr"))
    with torch.no_grad():
        outputs = model.outputs(image("64x96", 64, 96))
    for name in ("out", "aux"):
        assert relative_error(outputs[name], LOGITS[f"{variant}/{name}"]) < 1e-4


def test_a_region_is_the_mean_of_its_pixels():
    pixels = torch.tensor([[[[1.0, 3.0, 8.0]]]])
    # The softmax over positions is 1/2, 1/2, 0 for the first class, and 0, 0, 1 for the second.
    logits = torch.tensor([[[[5.0, 5.0, -1e4]], [[-1e4, -1e4, 0.0]]]])
    torch.testing.assert_close(gather(pixels, logits).flatten(), torch.tensor([2.0, 8.0]))


def test_both_outputs_start_with_nearly_equal_probabilities():
    torch.manual_seed(0)
    features = [torch.randn(2, 16, 16, 24), torch.randn(2, 32, 8, 12)]
    for logits in OCRHead([16, 32], num_classes=11)(features).values():
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(2, 16, 24, dtype=torch.long))
        assert abs(loss.item() - math.log(11)) < 0.1
