"""Training settings of `hrseg init`: hand-worked values for data and machines."""

import pytest
import yaml

from hrseg.data.analysis.training_settings import Machine, Measured, Settings

GPU = Machine(64 * 2**30, 16, gpu=True)
LAPTOP = Machine(8 * 2**30, 4, gpu=False)


def settings(machine=GPU, train=400, val=100, size=(1024, 2048), shares=(0.5, 0.5), names="ab"):
    return Settings(Measured(train, val, size, tuple(names), shares), machine)


@pytest.mark.parametrize(
    ("size", "crop"),
    [((1024, 2048), (512, 512)), ((600, 800), (288, 384)), ((20, 400), (32, 256))],
)
def test_crops_are_half_the_image_in_whole_32s_that_fit(size, crop):
    assert settings(size=size).crop_size == crop


@pytest.mark.parametrize(
    ("machine", "crop", "batch"),
    [
        (GPU, (512, 512), 16),  # 16 x 512 x 512 = 2^22 pixels
        (LAPTOP, (352, 352), 4),  # 2^19 pixels, of 4 crops: 362 x 362
        (Machine(2**30, 16, gpu=False), (256, 256), 4),  # 2^29 bytes / 1632 = 328,965 pixels
    ],
)
def test_crop_and_batch_follow_the_machine(machine, crop, batch):
    chosen = settings(machine)
    assert (chosen.crop_size, chosen.batch_size) == (crop, batch)


def test_a_batch_is_not_larger_than_the_training_images():
    assert settings(train=3).batch_size == 3


@pytest.mark.parametrize(
    ("train", "steps", "epochs"),
    [(36, 1500, 500), (400, 4000, 160), (10_000, 20_000, 32), (10**6, 30_000, 10)],
)
def test_steps_grow_with_the_square_root_of_the_images(train, steps, epochs):
    chosen = settings(train=train)
    assert (chosen.steps, chosen.max_epochs) == (steps, epochs)


def test_validations_take_at_most_a_fifth_of_the_time():
    # 100 x 2^21 pixels / 3 against 400 x 2^18 pixels: 2/3 of an epoch's time.
    assert settings().epochs_per_validation == 4  # ceil of 160 / 50, more than ceil of 4 x 2/3


def test_weights_are_the_root_of_the_median_share_within_bounds():
    chosen = settings(shares=(0.64, 0.16, 0.04, 0.0), names="abcd")
    assert chosen.class_weights == [0.5, 1.0, 2.0, 1.0]
    assert settings(shares=(0.9, 0.09, 0.009), names="abc").class_weights == [0.5, 1.0, 3.0]


def test_a_rare_class_gets_balanced_crops_and_its_name_is_the_reason():
    lines = settings(shares=(0.995, 0.005)).data_lines()
    (line,) = [line for line in lines if "class_uniform" in line]
    assert "class_uniform: 0.25" in line and line.endswith("less than 1 % of the pixels: b")
    assert not any("class_uniform" in line for line in settings(shares=(0.98, 0.02)).data_lines())


@pytest.mark.parametrize("shares", [(0.95, 0.05), (0.4, 0.3, 0.3)])
def test_two_classes_and_classes_of_similar_size_get_no_weights(shares):
    (line,) = settings(shares=shares, names="abc"[: len(shares)]).loss_lines()
    assert "class_weights" not in line and "#" in line


def test_left_and_right_classes_are_not_mirrored():
    flips = {
        names: [line for line in settings(names=names).data_lines() if "flip" in line]
        for names in (("left arm", "Right_arm"), ("upright", "b"), ("a", "b"))
    }
    assert flips["left arm", "Right_arm"] == ["  flip: 0.0  # class names contain left or right"]
    assert flips["upright", "b"] == flips["a", "b"] == []


@pytest.mark.parametrize(
    ("size", "names"), [((1024, 2048), "rotate90, vflip"), ((600, 800), "vflip")]
)
def test_aerial_images_are_turned_if_the_crop_is_square(size, names):
    measured = Measured(400, 100, size, ("a", "b"), (0.5, 0.5), aerial=True)
    assert any(f"augment: [{names}]  #" in line for line in Settings(measured, GPU).data_lines())
    assert not any("augment" in line for line in settings(size=size).data_lines())


def test_every_line_is_yaml():
    chosen = settings(shares=(0.9, 0.095, 0.005), names=("left", "b", "c"))
    lines = ["data:", *chosen.data_lines(), "losses:", *chosen.loss_lines()]
    read = yaml.safe_load("\n".join([*lines, "trainer:", *chosen.trainer_lines()]))
    assert read["data"]["crop_size"] == [512, 512] and read["data"]["workers"] == 8
    assert read["losses"] == [{"name": "cross_entropy", "class_weights": [0.5, 1.0, 3.0]}]
    assert read["trainer"] == {"max_epochs": 160, "check_val_every_n_epoch": 4}
