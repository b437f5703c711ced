import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hrseg.errors import ConfigError, ProofError
from hrseg.inference import PROTOCOLS, Protocol, multi_scale
from hrseg.metrics import ConfusionMatrix
from hrseg.models import create_model
from hrseg.models.weights import load_weights
from tests.golden_weights import GOLDEN, official_weights, relative_error

EVALUATION = np.load(GOLDEN / "evaluation.npz")
LIP_PAIRS = ((14, 15), (16, 17), (18, 19))


def golden_model(name):
    bias = torch.tensor(EVALUATION[f"{name}/last_layer.3.bias"])
    weights = official_weights("w18_small_v2", len(bias))
    weights["last_layer.3.weight"] *= 6
    weights["last_layer.3.bias"] = bias
    model = create_model("hrnet_w18_small_v2", num_classes=len(bias)).eval()
    load_weights(model, weights)
    return lambda image: model.outputs(image)["out"]


def normalised(image_bgr):
    image = (image_bgr[..., ::-1] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.tensor(image.transpose(2, 0, 1)[None], dtype=torch.float32)


def check_golden(result, name, mode):
    scores, label = result.scores[..., ::4, ::4], torch.tensor(EVALUATION[f"{name}/label"])
    assert relative_error(scores[0], EVALUATION[f"{name}/{mode}/scores_stride4"]) < 1e-5
    np.testing.assert_array_equal(result.pred, EVALUATION[f"{name}/{mode}/argmax"])
    matrix = ConfusionMatrix(scores.shape[1])
    matrix.update(result.pred, label)
    np.testing.assert_array_equal(matrix.compute(), EVALUATION[f"{name}/{mode}/confusion"])


@pytest.mark.parametrize("mode", ["single", "ms_flip"])
def test_lip_protocol_gives_the_authors_scores_and_confusion(mode):
    image = cv2.resize(EVALUATION["lip/image_bgr"], (97, 97), interpolation=cv2.INTER_LINEAR)
    protocol = Protocol(flip=mode == "ms_flip", average="exp_logits")
    size = EVALUATION["lip/label"].shape
    arguments = (golden_model("lip"), normalised(image), protocol, size, LIP_PAIRS)
    check_golden(multi_scale(*arguments, keep_scores=True), "lip", mode)
    without_scores = multi_scale(*arguments)
    np.testing.assert_array_equal(without_scores.pred, EVALUATION[f"lip/{mode}/argmax"])
    assert without_scores.scores is None


def test_one_scale_of_a_cityscapes_image_gives_the_authors_scores_and_confusion():
    image = normalised(EVALUATION["cityscapes/image_bgr"])
    protocol = Protocol(average="exp_logits")
    result = multi_scale(golden_model("cityscapes"), image, protocol, keep_scores=True)
    check_golden(result, "cityscapes", "single")


class Toy:
    """Logits at a quarter of the size, a fixed function of the pooled image."""

    def __init__(self, dtype=torch.float32, full_size=False):
        self.dtype, self.full_size, self.sizes = dtype, full_size, []
        weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        self.weight = weight

    def __call__(self, image):
        self.sizes.append(tuple(image.shape))
        stride = 1 if self.full_size else 4
        return F.conv2d(image, self.weight, stride=stride, padding=2).to(self.dtype)


def image(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def bilinear(x, size, align_corners=False):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


RULES = {"softmax": lambda x: x.softmax(1), "exp_logits": torch.exp, "logits": lambda x: x}


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_scores_are_the_steps_of_the_protocol_written_out(rule, flip, align_corners):
    x, toy = image(45, 62), Toy()
    protocol = Protocol(scales=(0.75, 1.0, 1.5), flip=flip, average=rule)
    result = multi_scale(toy, x, protocol, (50, 70), [(1, 3)], align_corners, keep_scores=True)
    total = 0
    for scale, size in ((0.75, (34, 47)), (1.0, (45, 62)), (1.5, (68, 93))):
        scaled = bilinear(x, size)
        logits = bilinear(toy(scaled), size, align_corners)
        if flip:
            mirrored = bilinear(toy(scaled.flip(-1)), size, align_corners).flip(-1)
            logits = (logits + mirrored[:, [0, 3, 2, 1]]) / 2
        scores = bilinear(RULES[rule](logits), (50, 70), align_corners)
        assert (result.per_scale[scale] == scores.argmax(1)[0]).float().mean() > 0.999
        total = total + scores
    torch.testing.assert_close(result.scores, total, rtol=1e-4, atol=1e-4)
    assert torch.equal(result.pred.long(), result.scores.argmax(1)[0])
    assert list(result.per_scale) == [0.75, 1.0, 1.5]


def test_one_whole_image_is_the_argmax_of_the_upsampled_logits():
    x = image(45, 62)
    model = create_model("hrnet_w18_small_v1", num_classes=5).eval()
    with torch.no_grad():
        expected = model(x).argmax(1)[0]
    result = multi_scale(lambda x: model.outputs(x)["out"], x, Protocol())
    assert torch.equal(result.pred.long(), expected)
    assert result.per_scale[1.0] is result.pred
    assert result.pred.dtype == torch.uint8


def test_the_averaging_rule_decides_where_scales_disagree():
    # One scale is very sure of class 0, two are mildly for class 1.
    logits = {32: [9.0, 0.0], 40: [0.0, 2.0], 48: [0.0, 2.5]}

    def model(image):
        return torch.tensor(logits[image.shape[-1]]).view(1, 2, 1, 1).expand(1, 2, 8, 8)

    def winner(rule):
        protocol = Protocol(scales=(1.0, 1.25, 1.5), average=rule)
        return multi_scale(model, torch.zeros(1, 3, 32, 32), protocol).pred.unique().tolist()

    assert winner("softmax") == [1]  # 1.00 + .12 + .08 against .00 + .88 + .92
    assert winner("exp_logits") == [0]  # e^9 outweighs all
    assert winner("logits") == [0]  # 9 against 4.5


def test_a_mirrored_pair_of_classes_comes_back_to_its_side():
    # A pixel is class 1 left of the middle and 2 right of it, however the image is turned.
    def model(image):
        half = torch.arange(image.shape[-1]) < image.shape[-1] / 2
        left = half.float().expand(len(image), 1, *image.shape[-2:])
        return torch.cat([torch.zeros_like(left), left, 1 - left], 1)

    x = torch.zeros(1, 3, 32, 40)
    plain = multi_scale(model, x, Protocol(), flip_pairs=[(1, 2)])
    flipped = multi_scale(model, x, Protocol(flip=True), flip_pairs=[(1, 2)])
    assert torch.equal(plain.pred, flipped.pred)
    assert plain.pred[0, 0] == 1 and plain.pred[0, -1] == 2


def test_image_and_mirror_go_through_the_model_together_once_per_scale():
    toy = Toy()
    multi_scale(toy, image(40, 64), Protocol(scales=(1.0, 0.5), flip=True))
    assert toy.sizes == [(2, 3, 40, 64), (2, 3, 32, 32)]


def test_scaled_images_keep_the_32_pixels_that_a_network_needs():
    toy = Toy()
    result = multi_scale(toy, image(20, 100), Protocol(scales=(0.25, 2.0)))
    assert toy.sizes == [(1, 3, 32, 32), (1, 3, 40, 200)]
    assert result.pred.shape == (20, 100)


@pytest.mark.parametrize("rule", RULES)
def test_bfloat16_logits_are_promoted_before_anything_is_done(rule):
    x, protocol = image(40, 64), Protocol(scales=(1.0, 1.5), flip=True, average=rule)

    def rounded(image):
        return Toy()(image).to(torch.bfloat16).float()

    half = multi_scale(Toy(torch.bfloat16), x, protocol, keep_scores=True)
    assert half.scores.dtype == torch.float32
    assert torch.equal(half.scores, multi_scale(rounded, x, protocol, keep_scores=True).scores)


@pytest.mark.parametrize("rule", RULES)
def test_logits_of_the_model_are_left_alone(rule):
    kept = []

    def model(image):
        kept.append(Toy(full_size=True)(image))
        kept.append(kept[-1].clone())
        return kept[-2]

    multi_scale(model, image(40, 64), Protocol(scales=(1.0, 0.75), average=rule))
    assert torch.equal(kept[0], kept[1])


def test_only_one_image_at_a_time():
    with pytest.raises(ValueError, match=r"\(2, 3, 32, 32\)"):
        multi_scale(Toy(), torch.zeros(2, 3, 32, 32), Protocol())


def test_protocol_survives_the_way_through_plain_data():
    protocol = Protocol("mine", [0.5, 1], True, "exp_logits", "zero")
    data = protocol.to_dict()
    assert data == {
        "name": "mine",
        "scales": [0.5, 1.0],
        "flip": True,
        "average": "exp_logits",
        "absent_classes": "zero",
    }
    assert Protocol(**data) == protocol
    assert hash(protocol) == hash(Protocol(**data))
    assert PROTOCOLS["plain"] == Protocol()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": ()}, r"inference.scales is \(\); expected a list"),
        ({"scales": (1.0, -1)}, "inference.scales"),
        ({"scales": (1.0, 1)}, "each once"),
        ({"scales": (float("nan"),)}, "inference.scales"),
        ({"scales": (float("inf"),)}, "inference.scales"),
        ({"scales": ["big"]}, "inference.scales"),
        ({"scales": 1.0}, "inference.scales is 1.0; expected a list"),
        ({"flip": "yes"}, "inference.flip is 'yes'; expected true or false"),
        ({"average": "softmx"}, r"'softmx'. Did you mean: softmax\?"),
        ({"absent_classes": "skip"}, r"'skip'. Did you mean: skipped\?"),
    ],
)
def test_a_protocol_that_cannot_be_run_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Protocol(**arguments)


def test_large_logits_keep_their_order_under_exp_logits():
    logits = torch.zeros(1, 3, 32, 32)
    logits[:, 1], logits[:, 2] = 95, 120
    protocol = Protocol(scales=(1.0, 1.5), average="exp_logits")
    result = multi_scale(lambda x: logits, torch.zeros(1, 3, 32, 32), protocol)
    assert (result.pred == 2).all()


def test_scores_that_are_no_numbers_are_refused():
    logits = torch.full((1, 3, 32, 32), float("nan"))
    with pytest.raises(ProofError, match="not finite"):
        multi_scale(lambda x: logits, torch.zeros(1, 3, 32, 32), Protocol())
