import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import hrseg
from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError
from tests.conftest import silent_trainer, tiny_task


class Halves:
    """Images with a dark left half and a bright right half, and matching masks."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        mask = torch.zeros(32, 48, dtype=torch.uint8)
        mask[:, 24:] = 1
        image = (mask[None] * 150 + 50 * index).expand(3, -1, -1).contiguous()
        return {"image": image, "mask": mask, "name": f"{index}.png"}


def loader(batch_size=2):
    return DataLoader(Halves(), batch_size)


def test_training_learns_two_images(tmp_path):
    module = tiny_task(optimizer={"name": "sgd", "lr": 0.05})
    runner = silent_trainer(tmp_path, max_epochs=25)
    runner.fit(module, loader())
    runner.validate(module, loader(1), verbose=False)
    assert module.scores["miou"] > 0.9


def test_the_loss_is_the_weighted_sum_of_its_terms(tmp_path):
    terms = [
        {"name": "cross_entropy", "weight": 0.4},
        {"name": "cross_entropy", "weight": 1.0, "class_weights": [2.0, 2.0]},
    ]
    runner = silent_trainer(tmp_path)
    runner.fit(tiny_task(losses=terms), loader())
    # Equal class weights cancel in the weighted mean, so both terms are equal.
    total = runner.callback_metrics["train/loss"]
    runner = silent_trainer(tmp_path)
    runner.fit(tiny_task(losses=["cross_entropy"]), loader())
    alone = runner.callback_metrics["train/loss"]
    assert total.item() == pytest.approx(1.4 * alone.item(), rel=1e-5)


def test_scores_equal_a_manual_count_of_the_predictions(tmp_path):
    module = tiny_task(protocol=Protocol(scales=(1.0, 1.5), flip=True))
    silent_trainer(tmp_path).validate(module, loader(1), verbose=False)
    assert list(module.scores["per_scale"]) == ["1.0", "1.5"]
    module = tiny_task()
    silent_trainer(tmp_path).validate(module, loader(1), verbose=False)
    counts = np.zeros((2, 2), int)
    module.eval()
    with torch.inference_mode():
        for item in (Halves()[0], Halves()[1]):
            pred = module(item["image"][None]).argmax(1)[0]
            np.add.at(counts, (item["mask"].long().numpy(), pred.numpy()), 1)
    assert module.scores["confusion_matrix"] == counts.tolist()
    assert module.scores["per_scale"]["1.0"]["miou"] == module.scores["miou"]
    assert module.scores["protocol"] == Protocol().to_dict()


def test_two_classes_are_scored_by_threshold_and_calibration(tmp_path):
    module = tiny_task(["rest", "crack"], protocol=Protocol(average="exp_logits"))
    silent_trainer(tmp_path).validate(module, loader(1), verbose=False)
    module.eval()
    with torch.inference_mode():
        logits = torch.cat([module(Halves()[i]["image"][None]) for i in (0, 1)])
    shares, truth = logits.softmax(1), torch.stack([Halves()[i]["mask"] for i in (0, 1)])
    row = module.scores["binary"]["curve"][9]
    hits = ((shares[:, 1] >= 0.5) & (truth == 1)).sum()
    assert row["threshold"] == 0.5
    assert row["recall"] == pytest.approx(float(hits / truth.sum()), abs=1e-3)
    pixels = module.scores["calibration"]["bins"]
    assert sum(row["pixels"] for row in pixels) == truth.numel()
    mean = sum(row["pixels"] * (row["confidence"] or 0) for row in pixels) / truth.numel()
    assert mean == pytest.approx(float(shares.amax(1).mean()), abs=1e-4)


def test_more_classes_are_scored_by_calibration_only_on_request(tmp_path):
    module = tiny_task(["a", "b", "c"])
    silent_trainer(tmp_path).validate(module, loader(1), verbose=False)
    matrix = module.scores["confusion_matrix"]
    assert not {"binary", "calibration"} & module.scores.keys()
    module.score_calibration(temperature=2.0)
    silent_trainer(tmp_path).validate(module, loader(1), verbose=False)
    assert module.scores["calibration"]["temperature"] == 2.0
    assert module.scores["confusion_matrix"] == matrix
    assert "binary" not in module.scores


def test_a_threshold_for_three_classes_is_refused_before_the_training():
    with pytest.raises(ConfigError, match="the model has 3 classes"):
        tiny_task(["a", "b", "c"], protocol=Protocol(threshold=0.4))


def test_a_scale_report_scores_each_subset_as_a_separate_evaluation(tmp_path):
    scales = (1.0, 1.5, 2.0)
    module = tiny_task(protocol=Protocol(scales=scales, average="exp_logits"), scale_report=True)
    silent_trainer(tmp_path).validate(module, loader(1), verbose=False)
    report, fused = module.scores["scale_report"], module.scores["confusion_matrix"]
    assert [row["scales"] for row in report["prefixes"]] == [[1.0], [1.0, 1.5], [1.0, 1.5, 2.0]]
    assert len(report["subsets"]) == 7
    assert [row["cost"] for row in report["prefixes"]] == pytest.approx([1 / 7.25, 3.25 / 7.25, 1])
    for row in report["subsets"]:
        alone = tiny_task(protocol=Protocol(scales=tuple(row["scales"]), average="exp_logits"))
        alone.load_state_dict(module.state_dict(), strict=False)
        silent_trainer(tmp_path).validate(alone, loader(1), verbose=False)
        assert row["miou"] == pytest.approx(alone.scores["miou"], abs=1e-6)
        if row["scales"] == list(scales):
            assert fused == alone.scores["confusion_matrix"]


def test_a_frozen_backbone_keeps_weights_and_statistics(tmp_path):
    module = tiny_task(freeze_backbone=True)
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    silent_trainer(tmp_path, max_epochs=2).fit(module, loader())
    after = module.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_a_checkpoint_contains_its_metadata_as_plain_data(tmp_path):
    module = tiny_task(palette=[(0, 0, 0), (255, 0, 0)], flip_pairs=[(0, 1)])
    runner = silent_trainer(tmp_path)
    runner.fit(module, loader())
    runner.save_checkpoint(tmp_path / "a.ckpt")
    metadata = torch.load(tmp_path / "a.ckpt", weights_only=True)["hrseg"]
    assert metadata["class_names"] == ["left", "right"]
    assert metadata["palette"] == [[0, 0, 0], [255, 0, 0]]
    assert metadata["flip_pairs"] == [[0, 1]]
    assert metadata["architecture"]["backbone"] == "hrnet_w18_small_v1"
    assert Protocol(**metadata["protocol"]) == Protocol()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"losses": ["cross_entropi"]}, "Did you mean: cross_entropy"),
        ({"losses": [{"name": "ohem", "min_kep": 1}]}, "Did you mean: min_kept"),
        ({"protocol": "plane"}, "Did you mean: plain"),
        ({"on_bad_loss": "skp"}, "on_bad_loss 'skp'(.|\\n)*skip"),
        ({"losses": [{"name": "ohem", "on": "aux"}]}, "unknown output of the model 'aux'"),
        ({"protocol": Protocol(scales=tuple(range(1, 10))), "scale_report": True}, "9 scales"),
    ],
)
def test_unknown_names_are_refused_by_the_constructor(arguments, expected):
    with pytest.raises(ConfigError, match=expected):
        tiny_task(**arguments)


def test_the_number_of_class_names_must_match_the_model():
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=3)
    with pytest.raises(
        ConfigError, match="The model has 3 classes, but class_names has 2: left, right"
    ):
        hrseg.SegmentationTask(model, ["left", "right"])


def test_numpy_palettes_and_a_single_loss_name_are_accepted(tmp_path):
    module = tiny_task(palette=np.array([[1, 2, 3], [4, 5, 6]]), losses="cross_entropy")
    runner = silent_trainer(tmp_path)
    runner.fit(module, loader())
    runner.save_checkpoint(tmp_path / "a.ckpt")
    assert hrseg.load(tmp_path / "a.ckpt").palette == [[1, 2, 3], [4, 5, 6]]
