import numpy as np
import pytest
import torch

import hrseg
from hrseg.config.protocols import PROTOCOLS
from hrseg.errors import VerificationError
from hrseg.export.verification import SHAPES, Comparison, prove
from hrseg.inference.predictor import Predictor
from tests.conftest import picture
from tests.inference.test_exported_model import engine
from tests.untrained import save_untrained


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return hrseg.load(save_untrained(tmp_path_factory.mktemp("proof") / "w.ckpt"))


def behind_an_engine(predictor, change=lambda logits: logits, given="logits", taken="uint8"):
    """The model as an exported file would be, its logits changed."""

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
    pictures = [picture((50, 70), seed) for seed in range(3)]
    masks = [random.integers(0, 3, (50, 70), dtype=np.uint8) for _ in range(3)]
    return Comparison(lambda index: (pictures[index], masks[index]), range(3))


@pytest.mark.parametrize(("given", "taken"), [("logits", "normalized"), ("ids", "uint8")])
def test_an_equal_file_is_proven_at_every_shape_and_on_every_image(predictor, images, given, taken):
    proof = prove(predictor, behind_an_engine(predictor, given=given, taken=taken), False, images)
    assert [tuple(row["shape"]) for row in proof["shapes"]] == list(SHAPES)
    assert proof["agreement"] == 1.0
    assert (proof["max_difference"] is None) == (given == "ids")
    assert proof["miou"]["agreement"] == 1.0
    assert proof["miou"]["original"] == proof["miou"]["exported"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits * 1.01, "logits differ by 1.0e-02"),
        (lambda logits: logits.flip(1), "the class is the same on"),
        (lambda logits: logits * torch.nan, "logits differ by nan"),
        (lambda logits: logits[:, :2], r"(?s)\(1, 2, 33, 33\).*xpected:? \(1, 3, 33, 33\)"),
    ],
)
def test_a_file_that_differs_is_refused_with_by_how_much(predictor, change, message):
    with pytest.raises(VerificationError, match=message) as error:
        prove(predictor, behind_an_engine(predictor, change), False, None)
    assert error.value.exit_code == 4


def test_in_int8_the_loss_of_miou_decides(predictor, images):
    close = prove(predictor, behind_an_engine(predictor, lambda x: x * 1.05), True, images)
    assert close["max_difference"] > 0.04
    with pytest.raises(VerificationError, match=r"mIoU went from .* to .*, 2 points are allowed"):
        wrong = behind_an_engine(predictor, lambda x: x * torch.tensor([1.0, 1, -9]).view(3, 1, 1))
        prove(predictor, wrong, True, images)


def test_a_file_of_bytes_is_compared_by_what_of_the_protocol_it_can_do(predictor, images):
    whole = predictor.with_protocol("mmseg")
    proof = prove(whole, behind_an_engine(predictor), False, images)
    protocol = proof["miou"]["protocol"]
    assert (protocol["scales"], protocol["base_size"], protocol["flip"]) == ([1.0], 0, False)
    other = prove(whole, behind_an_engine(predictor, taken="normalized"), False, images)
    assert other["miou"]["protocol"]["scales"] == list(PROTOCOLS["mmseg"].scales)
