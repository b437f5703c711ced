"""Prediction of images other than 8-bit RGB: files, arrays, GeoTIFF masks, exported files."""

import numpy as np
import pytest
import rasterio
import torch

import hrseg
from hrseg.cli import main
from hrseg.errors import DataError
from hrseg.utils.channels import Channels
from tests.multiband import GEOREFERENCE, scene, write_tiff
from tests.untrained import NAMES, PALETTE, save_checkpoint

BANDS = Channels.of((4, 3, 2, 8), "uint16", [(500, 3000)] * 4)


def save_model(path, channels=BANDS):
    torch.manual_seed(0)
    count = channels.count
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=3, in_channels=count)
    torch.nn.init.normal_(model.head.last_layer[-1].weight, std=1.0)
    task = hrseg.SegmentationTask(model, NAMES, palette=PALETTE, channels=channels)
    return save_checkpoint(task, path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "bands.ckpt")


@pytest.fixture
def image():
    return scene(8, "uint16")[0]


def test_files_arrays_and_tensors_have_the_same_prediction(checkpoint, image, tmp_path):
    predictor = hrseg.load(checkpoint)
    chosen = np.ascontiguousarray(image[..., [3, 2, 1, 7]])
    tensor = torch.from_numpy(chosen)
    inputs = [write_tiff(tmp_path / "a.tif", image), chosen, tensor, tensor.permute(2, 0, 1)]
    masks = [prediction.mask for prediction in predictor.predict(inputs)]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    with torch.no_grad():  # by hand: the range to 0..1, mean 0.5, std 0.25, network, argmax
        x = ((torch.from_numpy(chosen.astype(np.float32)) - 500) / 2500).clamp(0, 1)
        logits = predictor.model(((x - 0.5) / 0.25).permute(2, 0, 1)[None])
    assert (logits.argmax(1)[0].numpy() == masks[0]).mean() > 0.999
    assert len(np.unique(masks[0])) > 1


@pytest.mark.parametrize("protocol", [{"scales": (0.75, 1.0), "flip": True},
                                      {"window": (48, 48), "stride": (32, 32)},
                                      {"pad_multiple": 48}, {"resize": (48,)}])  # fmt: skip
@pytest.mark.parametrize("channels", [BANDS, Channels.of((2,))], ids=["four", "one"])
def test_protocols_resize_and_pad_any_channels(tmp_path, channels, protocol):
    predictor = hrseg.load(save_model(tmp_path / "a.ckpt", channels)).with_protocol(**protocol)
    pixels = scene(channels.count, channels.kind)[0]
    assert predictor.predict(pixels).mask.shape == pixels.shape[:2]


@pytest.mark.parametrize("size", [(64, 80), (200, 300)])
def test_a_geotiff_of_any_size_has_a_geotiff_mask(checkpoint, tmp_path, size):
    pixels = scene(8, "uint16", size=size)[0]
    write_tiff(tmp_path / "in" / "a.tif", pixels, **GEOREFERENCE)
    out = tmp_path / "out"
    command = f"predict {tmp_path / 'in'} --checkpoint {checkpoint} --out {out} --tile 512"
    assert main(command.split()) == 0
    with rasterio.open(out / "masks" / "a.tif") as mask:
        assert (mask.crs, mask.transform) == (GEOREFERENCE["crs"], GEOREFERENCE["transform"])
        whole = hrseg.load(checkpoint).predict(tmp_path / "in" / "a.tif").mask
        assert mask.shape == size and (mask.read(1) == whole).mean() > 0.999
    assert (out / "overlays" / "a.jpg").is_file()


def test_the_overlay_shows_the_first_three_channels_stretched(checkpoint, image, tmp_path):
    image[...] = 1750  # the middle of the value range
    prediction = hrseg.load(checkpoint).predict(write_tiff(tmp_path / "a.tif", image))
    assert (prediction.image == 128).all() and prediction.image.shape == (64, 80, 3)
    assert prediction.overlay(alpha=0)[0, 0].tolist() == [128, 128, 128]


def test_files_and_arrays_without_the_channels_are_refused(checkpoint, image, tmp_path, capsys):
    predictor = hrseg.load(checkpoint)
    with pytest.raises(DataError, match=r"a.tif has 4 bands, but data.channels uses band 8"):
        predictor.predict(write_tiff(tmp_path / "a.tif", image[..., :4]))
    for array in (image, image[..., :4].astype(np.uint8), image[..., 0]):
        with pytest.raises(DataError, match=r"Expected: uint16 \(H, W, 4\) of the bands 4, 3, 2"):
            predictor.predict(array)
    with pytest.raises(DataError, match=r"Expected: one image, uint16 \(4, H, W\) or \(H, W, 4\)"):
        predictor.predict(torch.zeros(3, 64, 64, dtype=torch.uint8))
    out = f"--checkpoint {checkpoint} --out {tmp_path / 'out'}"
    assert main(f"predict {tmp_path / 'a.tif'} {out}".split()) == 3
    assert "a.tif has 4 bands" in capsys.readouterr().out
