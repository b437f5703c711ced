"""Tiled inference: the mask of the whole image, with one row of tiles in memory."""

import numpy as np
import pytest
import torch

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError, DataError
from hrseg.inference.evaluator import Evaluator
from hrseg.inference.tiling import predict_bands, skipped_steps
from hrseg.models import create_model
from hrseg.models.normalize import Normalize
from tests.conftest import batch_of, picture


def network(align_corners, output="v2"):
    """An HRNet with large random weights in its last layer, so that the classes vary."""
    torch.manual_seed(0)
    settings = {"num_classes": 5, "align_corners": align_corners, "output": output}
    model = create_model("hrnet_w18_small_v1", **settings).eval()
    torch.nn.init.normal_(model.head.last_layer[-1].weight, std=1.0)
    return Evaluator(
        lambda image: model.outputs(image)["out"], Normalize(), Protocol(), (), align_corners
    )


def local_network():
    """A model with a receptive field of 4x4 pixels, so that tiles need no context."""
    classifier = torch.nn.Conv2d(3, 6, 4, 4)
    torch.manual_seed(0)
    torch.nn.init.normal_(classifier.weight)

    def model(image):
        height, width = image.shape[-2:]
        pad = (0, -width % 4, 0, -height % 4)
        return classifier(torch.nn.functional.pad(image, pad, mode="replicate"))

    return Evaluator(model, Normalize(), Protocol())


class Reader:
    """Returns rows; asserts that each is read once, in order, at most a row of tiles at a time."""

    def __init__(self, pixels, tile):
        self.pixels, self.next_row, self.tile = pixels, 0, tile

    def __call__(self, start, stop):
        assert start == self.next_row < stop <= min(start + self.tile, len(self.pixels))
        self.next_row = stop
        return self.pixels[start:stop]


def tiled(evaluator, pixels, **options):
    reader = Reader(pixels, options.get("tile", 1024))
    rows, masks = zip(*predict_bands(evaluator, reader, pixels.shape[:2], **options), strict=True)
    assert reader.next_row == len(pixels)
    assert list(rows) == np.cumsum([0, *map(len, masks)])[:-1].tolist()
    return np.concatenate(masks)


def whole(evaluator, pixels):
    return evaluator(batch_of(pixels)).pred.numpy()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("output", ["stream_3", "stream_4"])
def test_a_tile_of_a_coarser_output_has_nearly_the_mask_of_the_whole_image(output, align_corners):
    evaluator, pixels = network(align_corners, output), picture((205, 259))
    expected = whole(evaluator, pixels)
    assert len(np.unique(expected)) > 1
    # The logits are interpolated twice, first to stride 4.
    assert (tiled(evaluator, pixels) == expected).mean() > 0.98


@pytest.mark.parametrize(("align_corners", "flip"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("size", [(97, 131), (128, 33), (205, 256)])
@pytest.mark.parametrize("pad_multiple", [1, 32])
def test_a_single_tile_gives_the_mask_of_the_whole_image(align_corners, flip, size, pad_multiple):
    evaluator, pixels = network(align_corners), picture(size)
    evaluator.protocol = Protocol(flip=flip, pad_multiple=pad_multiple)
    expected = whole(evaluator, pixels)
    assert len(np.unique(expected)) > 1
    mask = tiled(evaluator, pixels, tile=256, overlap=64)
    assert (mask == expected).mean() > 0.9995  # the order of additions decides ties


@pytest.mark.parametrize("size", [(333, 517), (129, 257)])
@pytest.mark.parametrize("pad_multiple", [1, 32])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 0), (64, 32), (96, 32), (128, 64)])
def test_tiles_of_a_local_model_give_the_mask_of_the_whole_image(size, tile, overlap, pad_multiple):
    evaluator, pixels = local_network(), picture(size)
    evaluator.protocol = Protocol(pad_multiple=pad_multiple)
    mask = tiled(evaluator, pixels, tile=tile, overlap=overlap)
    assert (mask == whole(evaluator, pixels)).mean() > 0.9995


@pytest.mark.parametrize(("tile", "overlap"), [(500, 128), (512, 100), (512, 288), (512, -32)])
def test_tiles_off_the_grid_are_refused(tile, overlap):
    with pytest.raises(ConfigError, match="Expected: multiples of 32"):
        tiled(local_network(), picture((64, 64)), tile=tile, overlap=overlap)


def test_images_smaller_than_32x32_are_refused():
    with pytest.raises(DataError, match="at least 32"):
        tiled(local_network(), picture((64, 64))[:20])


@pytest.mark.parametrize(
    "fields", [{"pad_multiple": 48}, {"pad_multiple": 32, "crop_padding": False}]
)
def test_padding_is_skipped_and_named_if_tiles_cannot_start_on_it_or_it_is_not_cropped(fields):
    assert skipped_steps(Protocol(pad_multiple=8)) == []
    (note,) = skipped_steps(Protocol(**fields))
    assert note == "predicted in tiles at scale 1, without the protocol's pad_multiple"
    evaluator, pixels = local_network(), picture((129, 257))
    expected = tiled(evaluator, pixels, tile=64, overlap=0)
    evaluator.protocol = Protocol(**fields)
    assert np.array_equal(tiled(evaluator, pixels, tile=64, overlap=0), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("channels", "dtype", "border"), [(3, np.uint8, 9), (12, np.uint16, 0), (1, np.uint8, 0)]
)
def test_rows_are_padded_with_the_color_of_the_protocol(channels, dtype, border):
    pixels = np.full((45, 70, channels), 200, dtype)
    pixels.flags.writeable = False  # as in memory-mapped files
    protocol = Protocol(pad_multiple=32, pad_color=(9, 9, 9))
    seen = []

    def model(image):
        seen.append(image)
        return torch.zeros(len(image), 2, image.shape[2] // 4, image.shape[3] // 4)

    evaluator = Evaluator(model, lambda image: image.float(), protocol)
    options = {"tile": 128, "overlap": 32}
    bands = predict_bands(evaluator, lambda *rows: pixels[slice(*rows)], (45, 70), **options)
    assert [mask.shape for _, mask in bands] == [(45, 70)]
    (image,) = seen
    assert image.shape == (1, channels, 64, 96)
    assert (image[..., :45, :70] == 200).all()
    assert (image[..., 45:, :] == border).all() and (image[..., 70:] == border).all()
