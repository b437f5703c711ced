import cv2
import numpy as np

from hrseg.visualize import colorize, default_palette, error_map, legend, overlay, side_by_side

PALETTE = [[128, 64, 128], [0, 0, 142]]
MASK = np.array([[0, 1, 255]], np.uint8)


def test_ids_become_their_colours_and_void_is_black():
    assert colorize(MASK, PALETTE).tolist() == [[[128, 64, 128], [0, 0, 142], [0, 0, 0]]]
    assert colorize(MASK, PALETTE).dtype == np.uint8
    colors = colorize(MASK, ())[0].tolist()  # the default palette
    assert colors[2] == [0, 0, 0] and len(set(map(tuple, colors))) == 3


def test_overlay_mixes_by_alpha_and_leaves_void_pixels_unchanged():
    image = np.full((1, 3, 3), 200, np.uint8)
    mixed = overlay(image, MASK, PALETTE, alpha=0.25)
    assert mixed.tolist() == [[[182, 166, 182], [150, 150, 186], [200, 200, 200]]]
    assert np.array_equal(overlay(image, MASK, PALETTE, alpha=0.0), image)
    assert (image == 200).all()


def test_error_map_shows_right_wrong_and_ignored_pixels():
    pixels = error_map(MASK, np.array([[0, 0, 0]], np.uint8))[0].tolist()
    assert pixels == [[225, 225, 225], [214, 39, 40], [0, 0, 0]]


def test_side_by_side_has_a_thin_white_gap_and_takes_other_heights():
    low, high = np.zeros((4, 5, 3), np.uint8), np.ones((6, 3, 3), np.uint8)
    row = side_by_side([low, high])
    assert row.shape == (6, 5 + 4 + 3, 3)
    assert np.array_equal(row[:4, :5], low) and np.array_equal(row[:, 9:], high)
    assert (row[:, 5:9] == 255).all() and (row[4:, :5] == 255).all()


def test_titles_are_above_the_pictures():
    image = np.full((30, 80, 3), 9, np.uint8)
    row = side_by_side([image, image], ["truth", "prediction"])
    assert np.array_equal(row[-30:, :80], image) and np.array_equal(row[-30:, 84:], image)
    assert (row[:-30, :80] < 128).any(), "no dark letters"


def test_legend_shows_every_colour_in_the_given_width():
    palette = default_palette(30)
    strip = legend([f"class {i}" for i in range(30)], palette, width=300)
    assert strip.shape[1] == 300 and strip.dtype == np.uint8
    assert {tuple(color) for color in strip.reshape(-1, 3).tolist()} >= set(palette)


def test_default_colours_differ_visibly_and_stay_the_same():
    palette = default_palette(40)
    assert palette[:10] == default_palette(10)
    assert len(set(default_palette(255))) == 255
    rgb = np.array([[*palette, (0, 0, 0), (255, 255, 255)]], np.float32) / 255
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1) + 1000 * np.eye(len(lab))
    # A difference of 2.3 can just be seen.
    assert distances.min() > 20
