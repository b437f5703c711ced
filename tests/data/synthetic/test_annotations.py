"""Annotations of synthetic scenes, against masks, pycocotools and a hand-worked projection."""

import numpy as np
import pytest
from pycocotools import mask as coco

from hrseg.data.synthetic.annotations import visible_objects
from hrseg.data.synthetic.canvas import Canvas, Id
from hrseg.data.synthetic.objects import PERSON_KEYPOINTS, car, person
from hrseg.data.synthetic.scene import generate_annotated_scene, generate_scene

SCENES = [generate_annotated_scene(0, index, (96, 128)) for index in range(6)]


@pytest.fixture
def canvas():
    """Return a canvas of 100 x 100 pixels with a known camera, 3 m above the ground."""
    canvas = Canvas(np.random.default_rng(0), (100, 100))
    canvas.focal, canvas.horizon, canvas.center = 200.0, 40.0, 100.0
    canvas.eye, canvas.offset = 3.0, 0.0
    return canvas


def test_the_annotated_scene_has_the_pixels_of_the_plain_scene():
    for index, (image, mask, _) in enumerate(SCENES):
        plain = generate_scene(0, index, (96, 128))
        np.testing.assert_array_equal(image, plain[0])
        np.testing.assert_array_equal(mask, plain[1])


@pytest.mark.parametrize("label", [Id.CAR, Id.PERSON])
def test_the_objects_of_a_class_divide_its_pixels(label):
    for _, mask, objects in SCENES:
        masks = [item.mask for item in objects if item.label == label]
        np.testing.assert_array_equal(np.sum(masks, 0), mask == label)


def test_boxes_are_those_of_pycocotools():
    for item in (item for *_, objects in SCENES for item in objects):
        left, top, width, height = coco.toBbox(coco.encode(np.asfortranarray(item.mask, np.uint8)))
        assert item.box == (left, top, left + width, top + height)


def test_a_point_is_visible_if_its_pixel_belongs_to_the_person():
    persons = [item for *_, objects in SCENES for item in objects if item.label == Id.PERSON]
    assert len(persons) > 20
    points = np.concatenate([item.keypoints for item in persons])
    assert 0.2 < points[:, 2].mean() < 0.95  # both cases occur
    for item in persons:
        for x, y, visible in item.keypoints:
            left, top, right, bottom = item.box
            assert not visible or (left <= x < right and top <= y < bottom)
            assert not visible or item.mask[int(y), int(x)]


def test_the_points_of_a_person_are_projected_by_the_camera(canvas):
    person(canvas, x=0.0, z=10.0)
    (item,) = visible_objects(canvas)
    points = dict(zip(PERSON_KEYPOINTS, item.keypoints, strict=True))
    assert item.keypoints[:, 2].all()
    # 200 / 10 = 20 pixels of the canvas per metre: the feet, 5 cm above the ground, are in row
    # 40 + 2.95 * 20 = 99 of the canvas, that is, 99 / 2 + 0.25 in the image.
    assert points["left foot"][1] == points["right foot"][1] == pytest.approx(49.75)
    assert points["head"][0] == pytest.approx(100 / 2 + 0.25)
    # The head is 1.38 to 1.78 m high, so in rows 40 + 1.62 * 20 to 40 + 1.22 * 20 of the canvas.
    assert 32.2 + 0.25 <= points["head"][1] <= 36.2 + 0.25
    assert points["left shoulder"][0] < points["head"][0] < points["right shoulder"][0]


def test_a_car_in_front_hides_the_feet_but_not_the_head(canvas):
    person(canvas, x=0.0, z=10.0)
    car(canvas, x=0.0, z=8.0)
    walker, vehicle = visible_objects(canvas)
    assert (walker.label, vehicle.label) == (Id.PERSON, Id.CAR)
    visible = dict(zip(PERSON_KEYPOINTS, walker.keypoints[:, 2], strict=True))
    assert visible["head"] == 1 and visible["left foot"] == visible["right foot"] == 0
    assert vehicle.keypoints.shape == (0, 3)


def test_an_object_without_a_visible_pixel_is_left_out(canvas):
    person(canvas, x=1000.0, z=10.0)
    assert visible_objects(canvas) == []
