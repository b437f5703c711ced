"""Commands of the command line, on a data set that trains in seconds."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hrseg.cli import main
from hrseg.commands import doctor
from hrseg.config.loader import load_config
from tests.camvid_tree import fit_overrides, make_camvid
from tests.conftest import save_image

CONFIG = ["--config", "camvid_w18_small"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a data set and a finished run of two epochs."""
    home = tmp_path_factory.mktemp("home")
    make_camvid(home / "camvid")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", *CONFIG, *fit_overrides(home / "camvid")]) == 0
    return home


@pytest.fixture
def home(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def read(path):
    return json.loads(Path(path).read_text())


def weights_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def run_of(home):
    return (home / "runs/camvid_w18_small/latest").resolve()


def test_fit_leaves_a_complete_run_folder(home):
    run = run_of(home)
    for name in ("config.yaml", "metrics.csv", "scores.json", "checkpoints/best.ckpt",
                 "checkpoints/last.ckpt", "predictions", "images.json", "masks",
                 "report.html"):  # fmt: skip
        assert (run / name).exists(), name
    pictures = sorted((run / "predictions").glob("*.png"))
    assert [picture.stem for picture in pictures] == ["000", "001"]
    assert Image.open(pictures[0]).size[0] == 4 * 64 + 3 * 4
    header = (run / "metrics.csv").read_text().partition("\n")[0]
    assert {"epoch", "step", "val/miou"} <= set(header.split(","))
    scores = read(run / "scores.json")
    assert scores["classes"][0]["name"] == "Sky"
    assert scores["classes"][5]["iou"] is None or scores["classes"][5]["pixels"] == 0
    assert np.sum(scores["confusion_matrix"]) == 2 * 48 * 63
    assert scores["images"] == 2
    assert scores["epoch"] in (0, 1)


def test_the_saved_config_is_valid_and_has_absolute_paths(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(run_of(home) / "config.yaml"), "--print-config"]) == 0
    assert str(home / "camvid") in (run_of(home) / "config.yaml").read_text()


def test_validate_without_arguments_repeats_the_scores_of_fit_exactly(home, capsys):
    assert main(["validate"]) == 0
    printed = capsys.readouterr().out
    assert "Sky" in printed
    assert "mean" in printed
    newest = max((run_of(home) / "validate").iterdir())
    again, first = read(newest / "scores.json"), read(run_of(home) / "scores.json")
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "classes", "confusion_matrix"):
        assert again[key] == first[key]


def test_validate_reports_each_scale_and_the_fused_result(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # from another folder
    checkpoint = run_of(home) / "checkpoints" / "best.ckpt"
    code = main(["validate", *CONFIG, "--checkpoint", str(checkpoint), f"data.root={home}/camvid",
                 "inference.scales=[0.75,1.0,1.25]", "inference.flip=true",
                 "data.workers=0", "trainer.precision=32"])  # fmt: skip
    assert code == 0
    assert "x0.75" in capsys.readouterr().out
    scores = read(max((run_of(home) / "validate").iterdir()) / "scores.json")
    assert list(scores["per_scale"]) == ["0.75", "1.0", "1.25"]
    assert scores["protocol"]["flip"] is True
    assert all(row["miou"] is not None for row in scores["per_scale"].values())


def test_resume_continues_in_the_same_folder_and_keeps_the_history(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    overrides = fit_overrides(trained / "camvid")
    assert main(["fit", *CONFIG, *overrides]) == 0
    (run,) = (
        path for path in (tmp_path / "runs/camvid_w18_small").iterdir() if not path.is_symlink()
    )
    first = read(run / "scores.json")["miou"]
    before = (run / "metrics.csv").read_text().splitlines()
    assert main(["fit", *CONFIG, "--resume", "trainer.max_epochs=3"]) == 0
    after = (run / "metrics.csv").read_text().splitlines()
    assert len(after) > len(before)
    steps = {row.split(",")[after[0].split(",").index("step")] for row in after[1:]}
    assert {"1", "3", "5"} <= steps
    assert read(run / "scores.json")["miou"] >= first
    assert main(["fit", "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "nothing is left to train: the run has finished 3 epochs" in printed
    assert "M parameters, from scratch" in printed and "M parameters, from last.ckpt" in printed
    assert main(["fit", "--resume", "model.backbone=hrnet_w18"]) == 2
    assert "W18-small-v1" in capsys.readouterr().err
    for override, word in (
        ("optimizer.lr=0.5", "optimizer"),
        ("optimizer=sgd", "optimizer"),
        ("model.align_corners=true", "align_corners"),
        ("trainer.val_check_interval=500", "val_check_interval"),
    ):
        assert main(["fit", "--resume", override, "trainer.max_epochs=4"]) == 2
        assert word in capsys.readouterr().err
    assert main(["fit", "--resume"]) == 0  # the refused commands changed nothing
    assert main(["fit", "--resume", "runs/camvid_w18_small/latest"]) == 0
    assert run.with_name("latest").resolve() == run
    run = run.rename(run.with_name("20990101-000000"))
    capsys.readouterr()
    assert main(["fit", "--resume", str(run), "trainer.max_epochs=1"]) == 2
    assert "trainer.max_epochs is 1, but" in capsys.readouterr().err
    assert main(["fit", *CONFIG, "--resume", str(run)]) == 2
    assert "leave out --config" in capsys.readouterr().err
    assert main(["fit", "--resume", str(run), "trainer.max_epochs=5"]) == 0
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == read(run / "scores.json")["epoch"]
    for name in ("last.ckpt", "last.previous.ckpt"):
        damaged = run / "checkpoints" / name
        damaged.write_bytes(damaged.read_bytes()[:1000])
    assert main(["fit", "--resume"]) == 2
    assert "last.ckpt is damaged" in capsys.readouterr().err


def test_fine_tuning_keeps_the_backbone_and_lists_unused_tensors(home, tmp_path, capsys):
    data = tmp_path / "mine"
    for index in range(4):
        image = np.full((40, 56, 3), 60 * index, np.uint8)
        save_image(data / "images" / f"{index}.png", image)
        save_image(data / "masks" / f"{index}.png", image[..., 0] * 0 + index % 2)
    code = main(["fit", "--config", "folder", f"data.root={data}", "data.class_names=[a,b]",
                 "model.weights=null",
                 f"model.weights={run_of(home)}/checkpoints/best.ckpt",
                 "model.backbone=hrnet_w18_small_v1", "model.freeze_backbone=true",
                 "data.val_fraction=0.5", "data.batch_size=2", "data.crop_size=[32,32]",
                 "data.workers=0", "trainer.max_epochs=1", "loggers=[]",
                 f"runs={tmp_path}/runs"])  # fmt: skip
    assert code == 0
    assert "last_layer.3" in capsys.readouterr().out
    source = weights_of(run_of(home) / "checkpoints/best.ckpt")
    tuned = weights_of((tmp_path / "runs/folder/latest/checkpoints/last.ckpt").resolve())
    backbone = [name for name in source if ".backbone." in name]
    assert len(backbone) > 400
    assert all(torch.equal(source[name], tuned[name]) for name in backbone)
    assert tuned["model.head.last_layer.3.weight"].shape[0] == 2


def test_a_fast_dev_run_saves_nothing_and_max_steps_can_replace_epochs(home, tmp_path, capsys):
    overrides = [*fit_overrides(home / "camvid"), f"runs={tmp_path}"]
    assert main(["fit", *CONFIG, *overrides, "--trainer.fast_dev_run"]) == 0
    assert "trained 1 steps" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.ckpt"))
    overrides += ["trainer.max_steps=1"]
    assert main(["fit", *CONFIG, *overrides, "trainer.max_epochs=-1"]) == 0
    printed = capsys.readouterr().out
    assert "-1 epochs" not in printed and "/-1 " not in printed
    assert main(["fit", *CONFIG, *overrides, "trainer.enable_progress_bar=false"]) == 0


def test_the_end_of_training_is_validated_or_a_note_is_printed(home, tmp_path, capsys):
    overrides = [*fit_overrides(home / "camvid"), f"runs={tmp_path}"]
    assert main(["fit", *CONFIG, *overrides, "trainer.check_val_every_n_epoch=5"]) == 0
    assert (tmp_path / "camvid_w18_small/latest/scores.json").is_file()
    overrides += ["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"]
    assert main(["fit", *CONFIG, *overrides]) == 0
    assert "the last 1 epochs have no validation" in capsys.readouterr().out.replace("\n", " ")


def test_the_startup_summary_notes_padding_missing_scores_and_the_profile(home, tmp_path, capsys):
    overrides = [*fit_overrides(home / "camvid"), f"runs={tmp_path}", "trainer.max_epochs=1"]
    overrides += ["data.crop_size=[160,160]", "trainer.limit_val_batches=0"]
    overrides += ["trainer.limit_train_batches=1", "trainer.profiler=simple"]
    assert main(["fit", *CONFIG, *overrides]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "crop 160x160 is larger than the images (48x64" in printed
    assert "no validation (trainer.limit_val_batches=0)" in printed and "HINT" not in printed
    assert "epochs of 1 steps" in printed and "fit-profile.txt" in printed
    run = (tmp_path / "camvid_w18_small/latest").resolve()
    assert "run_training_epoch" in (run / "fit-profile.txt").read_text()


def test_a_checkpoint_is_not_scored_by_a_contradicting_config(home, capsys):
    checkpoint = ["--checkpoint", str(run_of(home) / "checkpoints" / "best.ckpt")]
    overrides = fit_overrides(home / "camvid")
    assert main(["validate", *CONFIG, *checkpoint, *overrides, "model.align_corners=true"]) == 2
    message = capsys.readouterr().err
    assert "align_corners False" in message
    assert "best.ckpt" in message


def test_validation_every_n_steps_across_epochs(home, tmp_path):
    overrides = [*fit_overrides(home / "camvid"), f"runs={tmp_path}", "trainer.max_epochs=3"]
    assert main(["fit", *CONFIG, *overrides, "trainer.val_check_interval=3"]) == 0
    rows = (tmp_path / "camvid_w18_small/latest/metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/miou")
    assert sum(bool(row.split(",")[column]) for row in rows[1:]) == 2  # steps 3 and 6


def test_the_config_sets_ema_early_stopping_and_accumulation(home, tmp_path):
    code = main(["fit", *CONFIG, *fit_overrides(home / "camvid"), "ema_decay=0.9",
                 "early_stopping_patience=1", "trainer.accumulate_grad_batches=2",
                 f"runs={tmp_path}"])  # fmt: skip
    assert code == 0
    run = (tmp_path / "camvid_w18_small/latest").resolve()
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert "averaging_state" in saved
    # A global batch of 2 in 2 parts: 4 images, 2 epochs, 8 forward passes, 4 optimiser steps.
    batches = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["completed"]
    assert (batches, saved["global_step"]) == (8, 4)
    assert any(name.startswith("EarlyStopping") for name in saved["callbacks"])
    assert main(["validate", "--checkpoint", str(run / "checkpoints/best.ckpt")]) == 0
    again = read(max((run / "validate").iterdir()) / "scores.json")
    assert again["confusion_matrix"] == read(run / "scores.json")["confusion_matrix"]


def test_the_score_of_the_ground_truth_against_itself_is_perfect(home, tmp_path, capsys):
    truth = home / "camvid" / "valannot"
    pred = tmp_path / "pred"
    for path in truth.iterdir():
        mask = np.array(Image.open(path))
        mask[mask == 11] = 0
        save_image(pred / path.name, mask)
    out = tmp_path / "scores.json"
    assert main(["score", *CONFIG, "--truth", str(truth), "--prediction", str(pred),
                 "--out", str(out)]) == 0  # fmt: skip
    assert read(out)["miou"] == 1.0
    assert "Sky" in capsys.readouterr().out


def test_configs_are_listed_and_copied_but_never_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs"]) == 0
    assert "camvid_w18_small" in capsys.readouterr().out
    assert main(["configs", "folder"]) == 0
    assert (tmp_path / "folder.yaml").is_file()
    assert main(["configs", "folder"]) == 2
    assert main(["configs", "foldr"]) == 2


def test_help_is_short_and_imports_nothing_heavy():
    code = (
        "import sys, hrseg, hrseg.cli\n"
        "hrseg.cli.make_parser()\n"  # of all commands
        "try: hrseg.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'omegaconf', 'rich', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 40


# Errors of users. Each is reported before the training, in at most four lines.


def unknown_id(image, mask):
    ids = np.array(Image.open(mask))
    ids[:3, :3] = 77
    Image.fromarray(ids).save(mask)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (unknown_id, ["trainannot/001.png", "77", "9 pixels"]),
        (lambda image, mask: mask.unlink(), ["001.png", "mask"]),
        (lambda image, mask: Image.open(mask).resize((32, 32)).save(mask),
         ["trainannot/001.png", "32x32", "64x48"]),
        (lambda image, mask: image.write_bytes(image.read_bytes()[:200]), ["train/001.png"]),
        (lambda image, mask: shutil.rmtree(image.parent), ["train"]),
    ],
)  # fmt: skip
def test_faulty_data_is_reported_before_training(tmp_path, monkeypatch, capsys, damage, expected):
    monkeypatch.chdir(tmp_path)
    root = make_camvid(tmp_path / "camvid")
    damage(root / "train" / "001.png", root / "trainannot" / "001.png")
    assert main(["fit", *CONFIG, *fit_overrides(root)]) == 3
    message = capsys.readouterr().err
    assert all(part in message for part in expected), message
    assert len(message.strip().splitlines()) <= 4
    assert not list(tmp_path.glob("runs/*/*/checkpoints"))


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["fit"], 2, ["--config"]),
        (["fit", "--config", "camvid_w18_smal"], 2, ["Did you mean: camvid_w18_small"]),
        (["fit", *CONFIG, "data.rot=x"], 2, ["data.rot", "root"]),
        (["fit", *CONFIG, "data.root=/no/such/place"], 3, ["/no/such/place", "data.root="]),
        (["fit", *CONFIG, "data.root=.", "model.weights=no.pth"], 2, ["no.pth", "null"]),
        (["validate"], 2, ["no run", "hrseg fit"]),
        (["validate", "--checkpoint", "x.ckpt"], 2, ["x.ckpt"]),
        (["fit", "--resume"], 2, ["no run"]),
        (["fit", *CONFIG, "--seed", "3"], 2, ["--seed", "key=value"]),
        (["fit", "--resume", "there"], 2, ["there"]),
        (["init", "no/such/folder"], 3, ["no/such/folder"]),
        (["validate", "runs=elsewhere", "name=mine"], 2, ["elsewhere", "mine"]),
        (["report", "none"], 2, ["none does not exist"]),
        (["report", "."], 2, ["contains no evaluation"]),
        (["report", "name=other"], 2, ["no run"]),
    ],
)
def test_an_invalid_command_is_reported_in_four_lines(
    tmp_path, monkeypatch, capsys, arguments, code, expected
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    message = capsys.readouterr().err
    assert all(part in message for part in expected), message
    assert len(message.strip().splitlines()) <= 4


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("datset", "Did you mean: dataset?"),
        ("[1,2]", "11 numbers, for Sky"),
        ("3", "a list of numbers"),
    ],
)
def test_invalid_class_weights_are_refused_before_training(
    home, tmp_path, capsys, weights, expected
):
    overrides = [*fit_overrides(home / "camvid"), f"runs={tmp_path}"]
    losses = f"losses=[{{name: cross_entropy, class_weights: {weights}}}]"
    assert main(["fit", *CONFIG, *overrides, losses]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("trainer.strategy=dpp", "fix: correct trainer.strategy"),  # refused by Lightning
        ("trainer.accelerator=gpu", "gpu"),
        ("trainer.accumulate_grad_batches=3", "3 accumulated batches"),
        ("losses=[{name: ohem, on: aux}]", "aux"),
        ("model.freeze_backbone=true", "model.freeze_backbone"),
        ("trainer.val_check_interval=500", "val_check_interval"),
    ],
)
def test_a_refused_training_leaves_no_run_folder(home, tmp_path, capsys, wrong, expected):
    overrides = [*fit_overrides(home / "camvid"), f"runs={tmp_path}"]
    assert main(["fit", *CONFIG, *overrides, wrong]) == 2
    assert expected in capsys.readouterr().err.lower()
    assert not list(tmp_path.glob("*/*"))


def test_data_check_exits_with_3_for_faults(tmp_path, capsys):
    root = make_camvid(tmp_path / "camvid")
    overrides = [f"data.root={root}", "--workers", "0", "--json", str(tmp_path / "check.json")]
    assert main(["data", "check", *CONFIG, *overrides]) == 0
    assert read(tmp_path / "check.json")["faults"] == 0
    (root / "valannot" / "001.png").write_bytes(b"")
    assert main(["data", "check", *CONFIG, *overrides]) == 3
    assert str(root / "valannot" / "001.png") in capsys.readouterr().out
    # The list of splits ends at the first key=value pair.
    assert main(["data", "check", *CONFIG, "--splits", "train", *overrides]) == 0
    assert list(read(tmp_path / "check.json")["splits"]) == ["train"]


def test_data_stats_of_a_split(tmp_path, capsys):
    root = make_camvid(tmp_path / "camvid")
    overrides = [f"data.root={root}", "--split", "val", "--workers", "0"]
    assert main(["data", "stats", *CONFIG, *overrides]) == 0
    assert "split val: 2 images" in capsys.readouterr().out
    assert main(["data", "check", *CONFIG, f"data.root={root}", "--workers", "-1"]) == 2
    assert "--workers -1" in capsys.readouterr().err


def test_report_adds_the_details_to_the_newest_run_or_to_a_validation(home, capsys):
    assert "details" not in read(run_of(home) / "scores.json")
    assert main(["report"]) == 0
    assert f"report: {run_of(home) / 'report.html'}" in capsys.readouterr().out
    scores = read(run_of(home) / "scores.json")
    low, high = scores["details"]["bootstrap"]["miou"]
    assert low <= scores["miou"] <= high
    assert set(scores["details"]["boundary"]) == {"3", "5", "9", "12"}
    assert main(["validate", "inference.details=true"]) == 0
    folder = max((run_of(home) / "validate").iterdir())
    assert "details" in read(folder / "scores.json")
    assert main(["report", str(folder), "--images", "1"]) == 0


def test_a_report_without_its_data_set_has_the_scores_and_prints_a_note(home, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["report", f"data.root={tmp_path / 'empty'}"]) == 0
    printed = capsys.readouterr().out
    assert "note: no details and no pictures: " in printed and "report: " in printed


def test_a_full_disk_is_reported_without_a_traceback(monkeypatch, capsys):
    def command(arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(doctor, "run", command)
    assert main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hrseg: A file could not be written: No space left on device.\n")
    assert len(error.splitlines()) == 3


def test_a_torchvision_of_another_build_is_reported_with_a_fix(monkeypatch, capsys):
    def command(arguments):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "run", command)
    assert main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hrseg: torchvision does not fit this torch: operator torchvision::nms")
    assert "Fix: pip uninstall torchvision (hrseg does not need it)" in error


@pytest.mark.parametrize(("count", "crop", "every"), [(10, 96, 10), (400, 512, 2)])
def test_init_sets_the_interval_of_validation_and_quotes_the_next_command(
    tmp_path, monkeypatch, capsys, count, crop, every
):
    monkeypatch.chdir(tmp_path)
    mask = np.indices((crop, crop)).sum(0) % 3
    for index in range(count):
        image = np.full((crop, crop, 3), 60, np.uint8)
        save_image(tmp_path / f"my data/images/{index}.png", image)
        save_image(tmp_path / f"my data/masks/{index}.png", mask.astype(np.uint8))
    assert main(["init", "my data"]) == 0
    output = capsys.readouterr().out
    comments = output.partition("training starts")[0]
    assert comments.startswith("# Written by `hrseg init`")
    assert Path("my data.yaml").read_text().startswith(f'{comments}name: "my data"\n')
    assert "hrseg fit --config 'my data.yaml'" in output
    trainer = load_config("my data.yaml").trainer
    assert trainer["check_val_every_n_epoch"] == every
    assert trainer["max_epochs"] % every == 0


def test_an_unwritable_output_is_reported_with_a_fix(home, capsys):
    (home / "file").touch()
    image = next((home / "camvid" / "val").iterdir())
    assert main(["predict", str(image), "--out", "file/out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hrseg: file/out") and "Not a directory.\nExpected: " in error
    assert "Fix: choose another path, e.g. runs=FOLDER or --out PATH" in error
