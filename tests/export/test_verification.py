import numpy as np
import pytest
import torch

import hrseg
from hrseg.config.protocols import PROTOCOLS
from hrseg.errors import VerificationError
from hrseg.export.verification import SHAPES, Comparison, verify
from hrseg.inference.predictor import Predictor
from tests.conftest import picture
from tests.inference.test_exported_model import engine
from tests.untrained import save_untrained


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return hrseg.load(save_untrained(tmp_path_factory.mktemp("proof") / "w.ckpt"))


def exported(predictor, change=lambda logits: logits, given="logits", taken="uint8"):
    """Return the model behind the interface of an exported file, with changed logits."""

    def run(image):
        x = torch.from_numpy(image)
        x = predictor.normalize(x) if taken == "uint8" else x
        with torch.no_grad():
            logits = change(predictor.model(x))
        return logits.argmax(1).to(torch.uint8).numpy() if given == "ids" else logits.numpy()

    file = engine(run, taken=taken, given=given)
    return Predictor(file, file.metadata)


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    images = [picture((50, 70), seed) for seed in range(3)]
    masks = [random.integers(0, 3, (50, 70), dtype=np.uint8) for _ in range(3)]
    return Comparison(lambda index: (images[index], masks[index]), range(3))


@pytest.mark.parametrize(("given", "taken"), [("logits", "normalized"), ("ids", "uint8")])
def test_an_equal_file_passes_at_every_shape_and_on_every_image(predictor, images, given, taken):
    proof = verify(predictor, exported(predictor, given=given, taken=taken), False, images)
    assert [tuple(row["shape"]) for row in proof["shapes"]] == list(SHAPES)
    assert proof["agreement"] == 1.0
    assert (proof["max_difference"] is None) == (given == "ids")
    assert proof["miou"]["agreement"] == 1.0
    assert proof["miou"]["original"] == proof["miou"]["exported"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits * 1.01, "logits differ by 1.0e-02"),
        (lambda logits: logits.flip(1), "of the pixels of a shape have the same class"),
        (lambda logits: logits * torch.nan, "logits differ by nan"),
        (lambda logits: logits[:, :2], r"(?s)\(1, 2, 33, 33\).*xpected:? \(1, 3, 33, 33\)"),
    ],
)
def test_the_error_for_a_differing_file_contains_the_difference(predictor, change, message):
    with pytest.raises(VerificationError, match=message) as error:
        verify(predictor, exported(predictor, change), False, None)
    assert error.value.exit_code == 4


def test_int8_files_are_checked_by_their_loss_of_miou(predictor, images):
    close = verify(predictor, exported(predictor, lambda x: x * 1.05), True, images)
    assert close["max_difference"] > 0.04
    message = r"mIoU changed from .* to .*\nExpected: a change of at most 2 points"
    with pytest.raises(VerificationError, match=message):
        wrong = exported(predictor, lambda x: x * torch.tensor([1.0, 1, -9]).view(3, 1, 1))
        verify(predictor, wrong, True, images)


def test_a_file_with_uint8_input_is_compared_with_a_reduced_protocol(predictor, images):
    mmseg = predictor.with_protocol("mmseg")
    proof = verify(mmseg, exported(predictor), False, images)
    protocol = proof["miou"]["protocol"]
    assert (protocol["scales"], protocol["base_size"], protocol["flip"]) == ([1.0], 0, False)
    normalized = verify(mmseg, exported(predictor, taken="normalized"), False, images)
    assert normalized["miou"]["protocol"]["scales"] == list(PROTOCOLS["mmseg"].scales)
