import pytest
import torch
import torch.nn.functional as F

from hrseg.config.protocols import Protocol
from hrseg.errors import VerificationError
from hrseg.inference.evaluator import Evaluator
from hrseg.models import create_model
from tests.conftest import batch_of, picture


class Toy:
    """A model with a fixed convolution of stride 4; `sizes` are the shapes of its inputs."""

    def __init__(self):
        self.sizes = []
        self.weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    def __call__(self, image):
        self.sizes.append(tuple(image.shape))
        return F.conv2d(image, self.weight, stride=4, padding=2)


def image(height, width):
    return batch_of(picture((height, width)))


def normalize(image):
    return (image.float() - 100) / 50


def evaluate(model, image, protocol, size=None, keep_scores=False, **arguments):
    return Evaluator(model, normalize, protocol, **arguments)(image, size, keep_scores)


def bilinear(x, size, align_corners=False):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


RULES = {"softmax": lambda x: x.softmax(1), "exp_logits": torch.exp, "logits": lambda x: x}


@pytest.mark.parametrize("scores_at", ["window", "image"])
@pytest.mark.parametrize("flip", ["none", "logits", "scores"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_scores_equal_the_protocol_steps_one_by_one(rule, flip, align_corners, scores_at):
    x, toy = image(45, 62), Toy()
    average = flip if flip != "none" else "logits"
    protocol = Protocol(
        scales=(0.75, 1.0, 1.5), flip=flip != "none", flip_average=average, average=rule,
        scores_at=scores_at,
    )  # fmt: skip
    options = {"flip_pairs": [(1, 3)], "align_corners": align_corners}
    result = evaluate(toy, x, protocol, (50, 70), True, **options)
    total = 0
    for scale, size in ((0.75, (34, 47)), (1.0, (45, 62)), (1.5, (68, 93))):
        scaled = bilinear(normalize(x), size)
        views = [bilinear(toy(scaled), size, align_corners)]
        if flip != "none":
            mirrored = bilinear(toy(scaled.flip(-1)), size, align_corners).flip(-1)
            views.append(mirrored[:, [0, 3, 2, 1]])
        if flip == "logits":
            views = [sum(views) / 2]
        if scores_at == "window":
            views = [RULES[rule](view) for view in views]
        for output_size in ((45, 62), (50, 70)):
            views = [bilinear(view, output_size, align_corners) for view in views]
        if scores_at == "image":
            views = [RULES[rule](view) for view in views]
        scores = sum(views) / len(views)
        assert (result.preds[(scale,)] == scores.argmax(1)[0]).float().mean() > 0.999
        total = total + scores
    torch.testing.assert_close(result.scores, total, rtol=1e-4, atol=1e-4)
    assert torch.equal(result.pred.long(), result.scores.argmax(1)[0])
    assert list(result.preds) == [(0.75,), (1.0,), (1.5,), (0.75, 1.0, 1.5)]


@pytest.mark.parametrize("scores_at", ["window", "image"])
@pytest.mark.parametrize("border", ["shift", "pad"])
def test_overlapping_windows_are_averaged(border, scores_at):
    x, toy = image(70, 100), Toy()
    protocol = Protocol(
        window=(32, 48), stride=(20, 40), window_border=border, window_color=(9, 8, 7),
        average="exp_logits", scores_at=scores_at,
    )  # fmt: skip
    result = evaluate(toy, x, protocol, keep_scores=True)
    shift = border == "shift"
    rows = [0, 20, 38 if shift else 40]
    columns = [0, 40, 52 if shift else 80]
    color = normalize(torch.tensor([9, 8, 7]).view(1, 3, 1, 1))
    padded = color.repeat(1, 1, 72, 128)
    padded[..., :70, :100] = normalize(x)
    total, count = torch.zeros(1, 4, 72, 128), torch.zeros(72, 128)
    for row in rows:
        for column in columns:
            logits = toy(padded[..., row : row + 32, column : column + 48])
            logits = bilinear(logits, (32, 48))
            scores = logits.exp() if scores_at == "window" else logits
            total[..., row : row + 32, column : column + 48] += scores
            count[row : row + 32, column : column + 48] += 1
    mean = (total / count)[..., :70, :100]
    mean = mean.exp() if scores_at == "image" else mean
    torch.testing.assert_close(result.scores, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("crop_padding", [True, False])
def test_padding_is_cropped_or_resized_with_the_scores(crop_padding):
    x, toy = image(45, 62), Toy()
    protocol = Protocol(
        pad_multiple=16, pad_color=(9, 8, 7), scales=(1.0, 1.5), average="exp_logits",
        crop_padding=crop_padding,
    )  # fmt: skip
    result = evaluate(toy, x, protocol, (50, 70), keep_scores=True)
    padded = torch.tensor([9, 8, 7], dtype=torch.uint8).view(1, 3, 1, 1).repeat(1, 1, 48, 64)
    padded[..., :45, :62] = x
    total = 0
    for size in ((48, 64), (72, 96)):
        scores = bilinear(toy(bilinear(normalize(padded), size)), size).exp()
        total = total + bilinear(scores, (48, 64))
    kept = total[..., :45, :62] if crop_padding else total
    torch.testing.assert_close(result.scores, bilinear(kept, (50, 70)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("crop_padding", [True, False])
@pytest.mark.parametrize("base_size", [0, 40, 48])
def test_classes_are_those_of_the_scores_if_the_padding_is_resized(base_size, crop_padding):
    protocol = Protocol(
        pad_multiple=16, base_size=base_size, average="exp_logits", crop_padding=crop_padding
    )
    result = evaluate(Toy(), image(40, 40), protocol, keep_scores=True)
    assert torch.equal(evaluate(Toy(), image(40, 40), protocol).pred, result.pred)


@pytest.mark.parametrize(("batch", "flip"), [(2, False), (5, True), (100, True)])
def test_batched_windows_have_the_scores_of_single_windows(batch, flip):
    x, toy = image(70, 100), Toy()
    protocol = Protocol(window=(32, 48), stride=(20, 40), flip=flip)
    single = evaluate(Toy(), x, protocol, keep_scores=True, batch=1)
    batched = evaluate(toy, x, protocol, keep_scores=True, batch=batch)
    torch.testing.assert_close(batched.scores, single.scores, rtol=1e-6, atol=1e-6)
    assert max(shape[0] for shape in toy.sizes) <= batch
    assert len(toy.sizes) == -(-9 * (2 if flip else 1) // batch)


def test_scales_up_to_window_above_are_run_without_windows():
    toy = Toy()
    protocol = Protocol(scales=(0.5, 1.0, 1.25), window=(64, 96), window_above=1.0)
    evaluate(toy, image(128, 96), protocol, batch=1)
    assert toy.sizes == [(1, 3, 64, 48), (1, 3, 128, 96)] + [(1, 3, 64, 96)] * 6


def test_the_default_protocol_is_the_argmax_of_upsampled_logits():
    x = image(45, 62)
    model = create_model("hrnet_w18_small_v1", num_classes=5).eval()
    with torch.no_grad():
        expected = model(normalize(x)).argmax(1)[0]
    result = evaluate(lambda x: model.outputs(x)["out"], x, Protocol())
    assert torch.equal(result.pred.long(), expected)
    assert result.pred.dtype == torch.uint8


def test_the_averaging_rule_decides_if_scales_disagree():
    # One scale has a large logit for class 0, two scales have small ones for class 1.
    logits = {32: [9.0, 0.0], 40: [0.0, 2.0], 48: [0.0, 2.5]}

    def model(image):
        return torch.tensor(logits[image.shape[-1]]).view(1, 2, 1, 1).expand(1, 2, 8, 8)

    def winner(rule):
        protocol = Protocol(scales=(1.0, 1.25, 1.5), average=rule)
        return evaluate(model, image(32, 32), protocol).pred.unique().tolist()

    assert winner("softmax") == [1]  # 1.00 + .12 + .08 < .00 + .88 + .92
    assert winner("exp_logits") == [0]  # e^9 is the largest term
    assert winner("logits") == [0]  # 9 > 4.5


def test_every_subset_of_scales_has_the_argmax_of_its_summed_scores():
    # The image has several bands of rows.
    x, protocol = image(150, 40), Protocol(scales=(0.5, 1.0, 2.0), average="exp_logits")
    evaluator = Evaluator(Toy(), normalize, protocol)
    with torch.inference_mode():
        single = {scale: rows.read(0, 150) for scale, rows in evaluator.scores(x).items()}
    subsets = evaluator(x, every_subset=True).preds
    assert len(subsets) == 7
    for scales, pred in subsets.items():
        total = sum(single[scale] for scale in scales)
        assert torch.equal(pred.long(), total.argmax(1)[0]), scales
    assert torch.equal(subsets[protocol.scales], evaluator(x).pred)


def test_nan_scores_raise_an_error():
    logits = torch.full((1, 3, 32, 32), float("nan"))
    for rule in RULES:
        with pytest.raises(VerificationError, match="scores are NaN or infinite"):
            evaluate(lambda x: logits, image(32, 32), Protocol(average=rule))


class Steep:
    """A model with logits from `low` to `high`, whose exponentials may overflow float32."""

    def __init__(self, low, high, dtype=torch.float32):
        draw = torch.Generator().manual_seed(0)
        self.logits = low + (high - low) * torch.rand(1, 4, 36, 48, generator=draw).to(dtype)

    def __call__(self, image):
        return self.logits.expand(len(image), -1, -1, -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-300, -100), (200, 600), (-350, 350)])
@pytest.mark.parametrize("rule", RULES)
def test_large_logits_of_any_precision_give_the_scores_of_float64(rule, low, high, dtype):
    model = Steep(low, high, dtype)
    protocol = Protocol(scales=(1.0, 2.0), average=rule, scores_at="window")
    result = evaluate(model, image(36, 48), protocol, keep_scores=True)
    logits = model.logits.double()
    total = RULES[rule](logits) + bilinear(RULES[rule](bilinear(logits, (72, 96))), (36, 48))
    best, chosen = total.amax(1), total.gather(1, result.pred.long()[None, None])[:, 0]
    assert (best - chosen <= 1e-4 * best.abs()).all()
    if rule != "logits":
        shares = result.scores / result.scores.sum(1, keepdim=True)
        expected = (total / total.sum(1, keepdim=True)).float()
        torch.testing.assert_close(shares, expected, rtol=1e-3, atol=1e-4)


def test_underflow_of_all_classes_of_a_pixel_raises_an_error():
    protocol = Protocol(scales=(1.0, 2.0), average="exp_logits")
    with pytest.raises(VerificationError, match="differ by more than the range of exp"):
        evaluate(Steep(-3000, 3000), image(36, 48), protocol)
