"""Replay of the user trials: generated data and configs, commands, and checks of their output.

    python scripts/maintenance/replay_trials.py [--hrseg "python -m hrseg"] [--only ROW] [--keep FOLDER]

A row passes if the exit code is correct, no traceback is printed, an error has at most four lines,
and the output contains every expected part (event, place, expectation, fix). Files of the user must
keep their sha256.
"""

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SIZE = (96, 128)
SHORT = (
    "data.crop_size=[64,64] data.batch_size=2 data.workers=0 trainer.max_epochs=1 "
    "trainer.limit_train_batches=1 trainer.limit_val_batches=1 trainer.accelerator=cpu"
)
FIT = f"hrseg fit --config base.yaml {SHORT}"


@dataclass(frozen=True)
class Row:
    """A command and its expected output.

    Attributes:
        name: name of the row in the tables of the trials.
        command: command line, run in the folder with the generated files.
        exit_code: expected exit code.
        parts: regular expressions that must match the output.
        absent: regular expressions that must not match the output.
    """

    name: str
    command: str
    exit_code: int
    parts: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def row(name: str, command: str, exit_code: int, *parts: str, absent: str = "") -> Row:
    return Row(name, command, exit_code, parts, (absent,) if absent else ())


_CROP = (r"data\.crop_size", r"\[\d+, ?\d+\]")
_LIST = (r"Fix|e\.g\.|such as",)

LAYOUTS = [
    row("4", "hrseg init d04 --out o/d04.yaml", 0, "black|0, 0, 0"),
    row("6b", "hrseg init d06b --out o/d06b.yaml", 0, "image_\\d+", "label_\\d+"),
    row("12", "hrseg init d12 --out o/d12.yaml", 0, "0", "unlabelled|ignore", "%"),
    row("13b", "hrseg init d13b --out o/d13b.yaml", 3, "16", "Fix|convert|write"),
    row("14", "hrseg init d14 --out o/d14.yaml", 3, "instance", "Fix|class"),
    row("20", f"hrseg fit --config csv.yaml {SHORT}", 3, r"pairs\.csv", "comma|space|list"),
    row("22s", "hrseg init d22s --out o/d22s.yaml", 0, "12 images"),
    row("29", "hrseg init d29 --out o/d29.yaml", 0, "12 images|scene0.*scene1"),
    row("30", "hrseg init d30 --out o/d30.yaml", 0, "3 (of 12 )?images", "on_error|leave|skip"),
    row("32", "hrseg init d32 --out o/d32.yaml", 0, r"IMG_\d\.png", r"img_\d\.png"),
    row("34", f"hrseg fit --config d34.yaml {SHORT}", 0, "EXIF"),
    row("35", "hrseg init d35 --out o/d35.yaml", 0, "EXIF"),
    row("47", "hrseg init d47 --out o/d47.yaml", 0, "EXIF"),
    row("38", "hrseg init d38 --out o/d38.yaml", 3, "per class", "binary|one mask"),
    row("40", "hrseg init d40 --out o/d40.yaml", 0, "data check"),
    row("41", "hrseg init d41 --out o/d41.yaml", 3, "interpolat", "nearest"),
    row("42", "hrseg init d42 --out o/d42.yaml", 0, "3 classes"),
    row("43", f"hrseg fit --config one.yaml {SHORT}", 0, "mIoU"),
    row("46", "hrseg init d46 --out o/d46.yaml", 3, r"\.npy"),
]

MISTAKES = [
    row("B_cmd_train", "hrseg train --config base.yaml", 2, "train", "Did you mean.*fit"),
    row("B_cmd_typo", "hrseg vaildate", 2, "vaildate", "Did you mean.*validate"),
    row("B_cmd_infer", "hrseg infer img.png", 2, "infer", "Did you mean.*predict"),
    row("B_cmd_help", "hrseg help", 0, "usage: hrseg"),
    row("B_cmd_helpfit", "hrseg help fit", 0, "usage: hrseg fit"),
    row("B_cmd_ver", "hrseg version", 0, r"hrseg \d"),
    row("B_fit_pos", "hrseg fit base.yaml", 2, "base.yaml", "--config base.yaml"),
    row("B_fit_pos2", "hrseg fit base", 2, "base", "--config base"),
    row(
        "B_fit_missing",
        "hrseg fit --config bsae.yaml",
        2,
        r"bsae\.yaml",
        r"[Dd]id you mean.*base\.yaml",
    ),
    row(
        "B_fit_yml", "hrseg fit --config base.yml", 2, r"base\.yml", r"[Dd]id you mean.*base\.yaml"
    ),
    row("B_fit_dir", "hrseg fit --config d01", 2, "folder", "hrseg init d01"),
    row("B_fit_text", "hrseg fit --config text.yaml", 2, r"text\.yaml", "key: value"),
    row("B_fit_img", "hrseg fit --config img.png", 2, r"img\.png", "PNG|image", "YAML"),
    row(
        "B_fit_syntax",
        "hrseg fit --config syntax.yaml",
        2,
        r"syntax\.yaml.*line \d",
        r"closed|\]|,",
        absent="unicode string",
    ),
    row(
        "B_fit_tabs",
        "hrseg fit --config tabs.yaml",
        2,
        r"tabs\.yaml.*line \d",
        "spaces",
        absent="unicode string",
    ),
    row(
        "B_fit_indent",
        "hrseg fit --config indent.yaml",
        2,
        r"indent\.yaml.*line \d",
        "indent",
        absent="unicode string",
    ),
    row(
        "B_fit_nocolon",
        "hrseg fit --config nocolon.yaml",
        2,
        r"nocolon\.yaml.*line \d",
        "colon|':'",
        absent="unicode string",
    ),
    row(
        "B_fit_nospace",
        "hrseg fit --config nospace.yaml",
        2,
        r"nospace\.yaml.*line \d",
        "space",
        absent="unicode string",
    ),
    row("B_fit_utf16", "hrseg fit --config utf16.yaml", 2, r"utf16\.yaml", "UTF-8"),
    row(
        "B_key_case",
        "hrseg fit --config base.yaml Data.batch_size=4",
        2,
        "command line",
        "Data",
        "Did you mean.*data",
    ),
    row("B_key_top", "hrseg fit --config base.yaml lr=0.01", 2, "lr", r"optimizer\.lr"),
    row("B_key_bs", "hrseg fit --config base.yaml batch_size=4", 2, r"data\.batch_size"),
    row("B_key_epochs", "hrseg fit --config base.yaml epochs=5", 2, r"trainer\.max_epochs"),
    row(
        "B_key_numcls", "hrseg fit --config base.yaml model.num_classes=5", 2, r"data\.class_names"
    ),
    *(
        row(f"B_val_crop_{name}", f"hrseg fit --config base.yaml {value}", 2, *_CROP)
        for name, value in {
            "int": "data.crop_size=256",
            "one": "data.crop_size=[256]",
            "comma": "data.crop_size=256,256",
            "x": "data.crop_size=256x256",
        }.items()
    ),
    row(
        "B_val_crop_space", "hrseg fit --config base.yaml data.crop_size=[64, 64]", 2, "quote|space"
    ),
    row(
        "B_loss2",
        "hrseg fit --config base.yaml losses=dice --print-config",
        2,
        "losses",
        r"losses=\[dice\]",
        absent="LossConfig",
    ),
    row(
        "B_weights_imagenet",
        "hrseg fit --config base.yaml model.weights=imagenet",
        2,
        "imagenet",
        "file",
    ),
    row(
        "B_root_file",
        "hrseg fit --config base.yaml data.root=img.png",
        3,
        r"img\.png",
        "file",
        "folder",
    ),
    row(
        "B_cls_many",
        f"{FIT} data.class_names=[a,b,c,d,e,f]",
        0,
        "d.*no pixel|no pixel.*d|without a pixel",
    ),
    row(
        "B_cls_dup",
        f"{FIT} data.class_names=[a,b,b]",
        2,
        r"data\.class_names",
        "twice|duplicate|unique",
    ),
    row(
        "B_cls_str",
        "hrseg fit --config base.yaml data.class_names=a",
        2,
        r"data\.class_names",
        r"\[.+\]",
    ),
    row("B_tr_fp16", f"{FIT} trainer.precision=16-mixed", 0, absent="HINT"),
    row(
        "B_tr_fp16b",
        "hrseg fit --config base.yaml trainer.precision=fp16",
        2,
        r"trainer\.precision",
        "16-mixed",
    ),
    row(
        "B_tr_ep0",
        "hrseg fit --config base.yaml trainer.max_epochs=0",
        2,
        r"trainer\.max_epochs",
        "at least 1|nothing",
    ),
    row(
        "B_tr_step0",
        "hrseg fit --config base.yaml trainer.max_steps=0",
        2,
        r"trainer\.max_steps",
        "at least 1|nothing",
    ),
    row(
        "B_loggers2",
        "hrseg fit --config base.yaml loggers=tensorboard",
        2,
        "loggers",
        r"\[tensorboard\]",
    ),
    row(
        "B_tr_strategy",
        "hrseg fit --config base.yaml trainer.strategy=dpp",
        2,
        r"trainer\.strategy",
        "dpp",
        "ddp",
    ),
    row(
        "B_ignint",
        "hrseg fit --config base.yaml data.ignore_ids=11",
        2,
        r"data\.ignore_ids",
        r"\[11\]|\[\d",
    ),
    row(
        "B_idmap1",
        "hrseg fit --config base.yaml data.id_map={0:0}",
        2,
        r"data\.id_map",
        "space|quote|: ",
    ),
    row(
        "B_iscale1",
        "hrseg fit --config base.yaml inference.scales=[0.75,1.0",
        2,
        r"inference\.scales",
        r"\]",
    ),
    row(
        "B_iscale2",
        "hrseg fit --config base.yaml inference.scales=0.75,1.0",
        2,
        r"inference\.scales",
        r"\[0\.75|\[\d",
    ),
    row(
        "B_v_img",
        "hrseg validate --checkpoint img.png",
        2,
        r"img\.png",
        "checkpoint",
        absent="lies in no run",
    ),
    row(
        "B_v_missing",
        "hrseg validate --checkpoint nope.ckpt",
        2,
        r"nope\.ckpt",
        "no such|does not exist|missing",
    ),
    row("B_v_dir", "hrseg validate --checkpoint runs/base/latest", 0, "mIoU"),
    row("B_v_dir2", "hrseg validate --checkpoint emptydir", 2, "emptydir", "checkpoint"),
    row(
        "B_v_swap",
        "hrseg validate --config good.ckpt --checkpoint base.yaml",
        2,
        r"good\.ckpt",
        "checkpoint",
        "--checkpoint",
    ),
    row("B_v_pos", "hrseg validate good.ckpt", 2, r"good\.ckpt", r"--checkpoint good\.ckpt"),
    row(
        "B_v_typo",
        "hrseg validate --chekpoint good.ckpt",
        2,
        "--chekpoint",
        "Did you mean.*--checkpoint",
    ),
    row(
        "B_v_fitkey",
        "hrseg validate --checkpoint good.ckpt --config base.yaml optimizer.lr=3 data.crop_size=256",
        2,
        *_CROP,
    ),
    row(
        "B_p_cuda",
        "hrseg predict img.png --checkpoint good.ckpt --device cuda",
        2,
        "cuda",
        "--device cpu",
    ),
    row(
        "B_p_dev",
        "hrseg predict img.png --checkpoint good.ckpt --device gpu",
        2,
        "gpu",
        "cuda",
        absent="fpga",
    ),
    row(
        "B_p_url",
        "hrseg predict https://example.com/a.png --checkpoint good.ckpt",
        2,
        "URL",
        "download",
    ),
    row(
        "B_p_goodvid",
        "hrseg predict good.avi --checkpoint good.ckpt --out o/po4",
        0,
        absent="sound",
    ),
    row("B_i_file", "hrseg init img.png", 3, r"img\.png", "file", "folder"),
    row(
        "B_i_key",
        "hrseg init d01 data.batch_size=2",
        2,
        r"data\.batch_size",
        "fit",
        absent="unknown argument",
    ),
    row("B_i_images", "hrseg init d01/images", 3, "hrseg init d01"),
    row("B_e_cfg", "hrseg export good.ckpt --config nope.yaml", 2, r"nope\.yaml"),
    row("B_e_outdir", "hrseg export good.ckpt --images 0 --out /proc/x.onnx", 2, "/proc", "--out"),
    row(
        "B_s_missing",
        "hrseg score --truth nope --prediction d01/masks --config base.yaml",
        3,
        "--truth",
        "nope",
        absent=r"data\.root",
    ),
    row("B_d_typo", "hrseg data chek", 2, "chek", "Did you mean.*check"),
    row("B_d_ok", "hrseg data check --config base.yaml", 0, absent="^no test split"),
    row("B_rep_ckpt", "hrseg report good.ckpt", 2, r"good\.ckpt", "file", "folder|validate"),
    row("B_o_confg", "hrseg fit --confg base.yaml", 2, "--confg", "Did you mean.*--config"),
    row(
        "B_o_bs",
        "hrseg fit --config base.yaml --batch-size 4",
        2,
        "--batch-size",
        r"data\.batch_size=4",
    ),
    row("B_o_lr", "hrseg fit --config base.yaml --lr 0.1", 2, "--lr", r"optimizer\.lr=0\.1"),
    row(
        "B_o_epochs",
        "hrseg fit --config base.yaml --epochs 3",
        2,
        "--epochs",
        r"trainer\.max_epochs=3",
    ),
    row(
        "B_o_two",
        "hrseg fit --config base.yaml --config camvid_w18_small --print-config",
        2,
        "--config",
        "twice|once|two",
    ),
    row("B_o_extra", "hrseg doctor now", 2, "now", "--help|no argument|takes no"),
    row("B_o_gpus", "hrseg fit --config base.yaml --gpus 1", 2, "--gpus", r"trainer\.devices=1"),
    row(
        "B_crop_big",
        f"{FIT} data.crop_size=[1024,1024] trainer.limit_val_batches=0",
        0,
        "crop",
        "padding|larger",
    ),
    row("B_noval", f"{FIT} trainer.limit_val_batches=0", 0, "valid", absent="HINT|call `?log"),
    row("B_run_as_conf", "hrseg fit --config runs/base/latest", 2, r"config\.yaml|--resume"),
    row(
        "B_ckpt_parent",
        "hrseg predict img.png --checkpoint runs/base --out o/po5",
        2,
        "runs/base",
        "latest",
    ),
    row("B_exp_parent", "hrseg export runs/base", 2, "runs/base", "latest"),
    row("B_home1", "hrseg fit --config home1.yaml", 2, r"home1\.yaml", "HOME", r"oc\.env"),
    row("B_home3", "hrseg fit --config home3.yaml", 3, r"\$HOME", r"oc\.env|not expanded|variable"),
    row("B_win", "hrseg fit --config win.yaml", 3, "Windows", absent=r"/C:"),
    row("B_yesno", "hrseg fit --config yesno.yaml --print-config", 2, r"yesno\.yaml", "quote"),
    row("B_coloncls", "hrseg fit --config coloncls.yaml", 2, r"coloncls\.yaml", "quote"),
    row("B_flag_yes", f"{FIT} trainer.deterministic=maybe", 2, r"trainer\.deterministic", "true"),
    row(
        "B_valint",
        f"{FIT} trainer.check_val_every_n_epoch=0",
        2,
        r"trainer\.check_val_every_n_epoch",
        "1",
    ),
    row("B_maxtime", f"{FIT} trainer.max_time=5", 2, r"trainer\.max_time", "00:"),
    row("T_2", f"{FIT} trainer.val_check_interval=0", 2, r"trainer\.val_check_interval"),
    row("T_5", f"{FIT} trainer.log_every_n_steps=0", 2, r"trainer\.log_every_n_steps"),
    row(
        "T_6",
        f"{FIT} trainer.limit_train_batches=0",
        2,
        r"trainer\.limit_train_batches",
        absent="poly",
    ),
    row(
        "T_8",
        f"{FIT} trainer.limit_train_batches=all",
        2,
        r"trainer\.limit_train_batches",
        r"1\.0|number",
    ),
    row("T_15", f"{FIT} trainer.profiler=simple", 0, "profil", "Action|fit_profile|written"),
    row(
        "T_20",
        f"{FIT} trainer.accumulate_grad_batches=0",
        2,
        r"trainer\.accumulate_grad_batches",
        "1",
    ),
    row("T_23", f"{FIT} trainer.plugins=foo", 2, r"trainer\.plugins"),
    row("T_26", f"{FIT} trainer.barebones=true", 2, r"trainer\.barebones"),
    row("T_32", f"{FIT} trainer.precision=transformer-engine", 2, r"trainer\.precision"),
    row("T_33", f"{FIT} trainer.accelerator=tpu", 2, r"trainer\.accelerator"),
    row("T_36", f"{FIT} trainer.enable_checkpointing=false", 2, r"trainer\.enable_checkpointing"),
    row("T_38", f"{FIT} trainer.max_time={{minutes:1}}", 2, r"trainer\.max_time", "00:"),
    row("T_43", f"{FIT} trainer.model_registry=x", 2, r"trainer\.model_registry"),
    row(
        "E_folder_rgb",
        "hrseg fit --config folder data.root=d04 data.class_names=[a,b]",
        3,
        "hrseg init",
    ),
    row(
        "E_camvid_wrongroot",
        "hrseg fit --config camvid_w18_small data.root=camvid/train",
        3,
        "camvid",
        r"data\.root=\S*camvid",
    ),
    row(
        "E_camvid_rel",
        "hrseg fit --config camvid_w18_small data.root=above",
        3,
        r"data\.root=\S*above/camvid",
    ),
    row("B_cls_one", f"hrseg fit --config one.yaml {SHORT}", 0, "mIoU"),
    row(
        "B_r_otherconf",
        "hrseg fit --config d04.yaml --resume runs/base/latest trainer.max_epochs=2",
        2,
        "--config",
        "--resume",
    ),
    row(
        "B_r_lower",
        "hrseg fit --resume runs/long/latest trainer.max_epochs=1",
        2,
        r"trainer\.max_epochs",
        absent="Misconfig",
    ),
    row(
        "B_p_over2",
        "hrseg predict d01/images --checkpoint other.ckpt --out o/po1",
        2,
        "o/po1",
        "--out|--resume",
    ),
    row("B_p_samein", "hrseg predict d19/images --checkpoint good.ckpt --out d19", 2, "--out"),
    row(
        "B_v_trainset",
        "hrseg validate --checkpoint runs/base/latest data.val_split=train trainer.limit_val_batches=1",
        3,
        "val_fraction",
        "Fix|list",
    ),
    row(
        "B_test_split",
        "hrseg validate --checkpoint runs/base/latest data.val_split=test",
        3,
        "test",
        r"val_split",
    ),
    row(
        "B_p_gt1",
        "bash -c 'cd d19 && hrseg predict images --checkpoint ../good.ckpt --out .'",
        2,
        "--out",
    ),
    row(
        "B_p_gt2",
        "bash -c 'cd d19 && hrseg predict images/0.png images/1.png --checkpoint ../good.ckpt --out .'",
        2,
        "--out",
    ),
    row(
        "B_p_gt3", "hrseg predict d01/images --checkpoint good.ckpt --out d19", 2, "masks", "--out"
    ),
    row(
        "B_d_json_over",
        "hrseg data check --config base.yaml --json base.yaml",
        2,
        r"base\.yaml",
        "--json",
    ),
    row(
        "B_s_out_over",
        "hrseg score --truth d01/masks --prediction d01/masks --config base.yaml --out img.png",
        2,
        r"img\.png",
        "--out",
    ),
    row(
        "B_p_dot",
        "bash -c 'cd dd && hrseg predict . --checkpoint ../good.ckpt --out .'",
        2,
        "--out",
    ),
    row(
        "B_p_dot2",
        "bash -c 'cd dd && hrseg predict img.png --checkpoint ../good.ckpt --out .'",
        2,
        "--out",
    ),
    row(
        "B_split_typo",
        f"{FIT} data.val_split=vlaidation data.train_split=foo",
        3,
        "vlaidation|foo",
        "split",
    ),
    row(
        "B_quote",
        'hrseg fit --config base.yaml data.class_names="a,b"',
        2,
        r"data\.class_names",
        r"\[a, ?b\]|\[.+\]",
    ),
    row(
        "B_none",
        "hrseg fit --config base.yaml data.val_fraction=None",
        2,
        r"data\.val_fraction",
        "null",
    ),
    row(
        "score own",
        "hrseg score --truth d02/masks --prediction o/own/masks --config d02.yaml",
        0,
        "mIoU",
    ),
]

ENVIRONMENTS = [
    row(
        "mask mode 000",
        "hrseg fit --config locked.yaml",
        3,
        "[Pp]ermission",
        "chmod|read",
        absent="copy it again",
    ),
    row("masks/ mode 000", "hrseg init closed --out o/closed.yaml", 3, "[Pp]ermission"),
    row("config missing folder", "hrseg fit --config nofolder/x.yaml", 2, "nofolder"),
]
TABLES = {"layouts": LAYOUTS, "mistakes": MISTAKES, "environments": ENVIRONMENTS}
OWN_FILES = ("d01", "d19", "base.yaml", "img.png", "dd")


def scene(rng: np.random.Generator, ids: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (H, W, 3) of rectangles and its mask (H, W), uint8."""
    image = np.full((*SIZE, 3), 60, np.uint8)
    mask = np.full(SIZE, ids[0], np.uint8)
    for index, value in enumerate(ids[1:] * 2):
        top, left = rng.integers(0, SIZE[0] - 30), rng.integers(0, SIZE[1] - 40)
        area = slice(top, top + 30), slice(left, left + 40)
        image[area] = 40 * (index % len(ids) + 2)
        mask[area] = value
    return image, mask


def write_pairs(
    root: Path,
    ids: tuple[int, ...] = (0, 1, 2),
    change: Callable[[np.ndarray], np.ndarray] = lambda mask: mask,
    image_name: str = "images/{}.png",
    mask_name: str = "masks/{}.png",
    count: int = 12,
) -> None:
    rng = np.random.default_rng(0)
    for index in range(count):
        image, mask = scene(rng, ids)
        for name, pixels in ((image_name, image), (mask_name, change(mask))):
            path = root / name.format(index)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)


def exif(path: Path, orientation: int) -> None:
    """Replace a PNG with a JPEG that has an EXIF orientation."""
    from PIL import Image

    image = Image.open(path)
    tags = Image.Exif()
    tags[0x0112] = orientation
    image.save(path.with_suffix(".jpg"), exif=tags, quality=95)
    path.unlink()


def build(run: Callable[[str], subprocess.CompletedProcess[str]], root: Path) -> None:
    """Write the folders and files of the rows."""
    (root / "o").mkdir()
    (root / "emptydir").mkdir()
    write_pairs(root / "d01")
    write_pairs(root / "d19", count=3)
    write_pairs(root / "d02", ids=(0, 255))
    colours = np.array([[0, 0, 0], [10, 200, 30], [200, 20, 90]], np.uint8)
    write_pairs(root / "d04", change=lambda mask: colours[mask])
    write_pairs(root / "d06b", image_name="image_{}.png", mask_name="label_{}.png")
    write_pairs(root / "d12", ids=(0, 1, 2, 3))
    (root / "d12/objectInfo150.txt").write_text("1 wall\n2 floor\n3 tree\n")
    write_pairs(root / "d13b", change=lambda mask: mask.astype(np.uint16) * 5000)
    many = np.arange(np.prod(SIZE)).reshape(SIZE) // 24
    write_pairs(root / "d14", change=lambda mask: many.astype(np.uint16))
    write_pairs(root / "real")
    (root / "d22s/images").mkdir(parents=True)
    for image in (root / "real/images").iterdir():
        (root / "d22s/images" / image.name).symlink_to(image)
    (root / "d22s/masks").symlink_to(root / "real/masks")
    for index in range(3):
        write_pairs(root / f"d29/scene{index}", count=4)
    write_pairs(root / "d30")
    for index in range(3):
        (root / f"d30/masks/{index}.png").unlink()
    write_pairs(root / "d32", image_name="images/IMG_{}.png", mask_name="masks/img_{}.png")
    for name, orientation, change in (
        ("d34", 6, np.rot90),
        ("d35", 3, lambda mask: mask[::-1, ::-1]),
        ("d47", 6, lambda mask: mask),
    ):
        write_pairs(root / name, change=lambda mask, turn=change: np.ascontiguousarray(turn(mask)))
        for path in sorted((root / name / "images").iterdir()):
            if name == "d47":
                cv2.imwrite(str(path), cv2.imread(str(path))[:96, :96])
                mask_path = root / name / "masks" / path.name
                cv2.imwrite(str(mask_path), cv2.imread(str(mask_path), 0)[:96, :96])
            exif(path, orientation)
    for name in ("car", "road"):
        write_pairs(root / "d38", ids=(0, 255), mask_name=f"masks/{name}/{{}}.png")
    write_pairs(root / "d40", count=1200)
    mask = cv2.imread(str(root / "d40/masks/777.png"), 0)
    mask[:9, :9] = 9
    cv2.imwrite(str(root / "d40/masks/777.png"), mask)
    write_pairs(root / "d41", ids=(0, 255), change=blend)
    write_pairs(root / "d42", ids=(0, 128, 255))
    write_pairs(root / "d46")
    for path in (root / "d46/masks").iterdir():
        np.save(path.with_suffix(".npy"), cv2.imread(str(path), 0))
        path.unlink()
    write_pairs(root / "camvid", image_name="train/{}.png", mask_name="trainannot/{}.png")
    write_pairs(root / "camvid", image_name="val/{}.png", mask_name="valannot/{}.png", count=3)
    (root / "above").mkdir()
    (root / "above/camvid").symlink_to(root / "camvid")
    for name in ("base d01", "d02 d02", "d04 d04"):
        config, folder = name.split()
        done = run(f"hrseg init {folder} --out {config}.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
    base = (root / "base.yaml").read_text().replace("name: d01", "name: base")
    (root / "base.yaml").write_text(base)
    shutil.copy(root / "d01/images/0.png", root / "img.png")
    (root / "dd").mkdir()
    shutil.copy(root / "img.png", root / "dd/img.png")
    texts = {
        "text.yaml": "just text",
        "syntax.yaml": "name: x\ndata:\n  name: folder\n  crop_size: [64, 64\nmodel:\n  head: fcn\n",
        "tabs.yaml": "data:\n\tname: folder\n",
        "indent.yaml": "data:\n  name: folder\n   root: d01\n",
        "nocolon.yaml": "name: x\ndata\n  name: folder\n",
        "nospace.yaml": "name: x\ndata:\n  name:folder\n  root: d01\n",
        "home1.yaml": re.sub(r"root: .*", "root: ${HOME}/d01", base),
        "home3.yaml": re.sub(r"root: .*", "root: $HOME/d01", base),
        "win.yaml": re.sub(r"root: .*", r"root: C:\\data\\d01", base),
        "yesno.yaml": re.sub(
            r"class_names:(\n +- .*)+|class_names: .*", "class_names: [yes, no, 0123]", base
        ),
        "coloncls.yaml": re.sub(
            r"class_names:(\n +- .*)+|class_names: .*", "class_names: [a: b, c, d]", base
        ),
        "one.yaml": re.sub(r"class_names:(\n +- .*)+|class_names: .*", "class_names: [road]", base),
        "csv.yaml": re.sub(r"train_split: .*", "train_split: pairs.csv", base),
    }
    for name, text in texts.items():
        (root / name).write_text(text)
    one = re.sub(
        r"id_map:(\n +\S+: .*)+|id_map: .*", "id_map: {0: 255, 1: 0, 2: 0}", texts["one.yaml"]
    )
    if "id_map" not in one:
        one = one.replace(
            "class_names: [road]", "class_names: [road]\n  id_map: {0: 255, 1: 0, 2: 0}"
        )
    one = re.sub(r"class_weights: \[.*\]", "class_weights: null", one)
    (root / "one.yaml").write_text(one)
    lines = [f"d01/images/{index}.png,d01/masks/{index}.png" for index in range(12)]
    (root / "pairs.csv").write_text("\n".join(["image,mask", *lines]) + "\n")
    (root / "utf16.yaml").write_bytes(base.encode("utf-16"))
    if run("hrseg init d34 --out d34.yaml").returncode:  # only the size of the masks differs
        (root / "d34.yaml").write_text(base.replace("d01", "d34"))
    for name, closed in (("locked", "masks/3.png"), ("closed", "masks")):
        write_pairs(root / name)
        (root / f"{name}.yaml").write_text(base.replace("d01", name))
        (root / name / closed).chmod(0)
    video = cv2.VideoWriter(str(root / "good.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, SIZE[::-1])
    for path in sorted((root / "d01/images").iterdir())[:4]:
        video.write(cv2.imread(str(path)))
    video.release()
    for config, epochs in (("base", 2), ("d02", 1)):
        done = run(f"hrseg fit --config {config}.yaml {SHORT} trainer.max_epochs={epochs}")
        assert done.returncode == 0, done.stdout + done.stderr
    done = run(f"hrseg fit --config base.yaml {SHORT} trainer.max_epochs=2 name=long")
    assert done.returncode == 0, done.stdout + done.stderr
    for name, config in (("good.ckpt", "base"), ("other.ckpt", "d02")):
        shutil.copy(root / f"runs/{config}/latest/checkpoints/best.ckpt", root / name)
    for command in (
        "hrseg predict d01/images --checkpoint good.ckpt --out o/po1",
        "hrseg predict d02/images --checkpoint other.ckpt --out o/own",
    ):
        done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr


def blend(mask: np.ndarray) -> np.ndarray:
    """Resize a mask with interpolation, like a wrongly used tool."""
    small = cv2.resize(mask, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def sums(root: Path) -> dict[str, str]:
    """Return the sha256 of each file in OWN_FILES."""
    paths: Iterator[Path] = (
        path for name in OWN_FILES for path in [root / name, *(root / name).rglob("*")]
    )
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }


def copy_own(source: Path, target: Path) -> None:
    """Copy the files in OWN_FILES."""
    target.mkdir(exist_ok=True)
    for name in OWN_FILES:
        if (target / name).is_dir():
            shutil.rmtree(target / name)
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, target / name)


def problems_of(row: Row, process: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the deviations of a command's output from its row."""
    output = process.stdout + process.stderr
    problems = []
    if process.returncode != row.exit_code:
        problems.append(f"exit code {process.returncode}, expected {row.exit_code}")
    if "Traceback" in output:
        problems.append("traceback")
    if process.returncode and len(process.stderr.strip().splitlines()) > 4:
        problems.append(f"{len(process.stderr.strip().splitlines())} lines of errors")
    problems += [
        f"missing: {part}" for part in row.parts if not re.search(part, output, re.I | re.M | re.S)
    ]
    problems += [f"present: {part}" for part in row.absent if re.search(part, output, re.M)]
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--hrseg", default=f"{sys.executable} -m hrseg", help="the hrseg command to test"
    )
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--keep", type=Path, help="folder for the generated files, which is kept")
    arguments = parser.parse_args()
    root = arguments.keep or Path(tempfile.mkdtemp(prefix="trials"))
    programs = root / ".bin"
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            shlex.split(command),
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    if not (root / "good.ckpt").exists():
        programs.mkdir(parents=True)
        program = programs / "hrseg"
        program.write_text(f'#!/bin/sh\nexec {arguments.hrseg} "$@"\n')
        program.chmod(0o755)
        build(run, root)
    own = root / ".own"
    if not own.exists():
        copy_own(root, own)
    for table, rows in TABLES.items():
        passed = total = 0
        for row in rows:
            if arguments.only and row.name not in arguments.only:
                continue
            before, start = sums(root), time.perf_counter()
            process = run(row.command)
            problems = problems_of(row, process)
            if sums(root) != before:
                problems.append("files of the user changed")
                copy_own(own, root)
            total += 1
            passed += not problems
            if problems or arguments.only:
                print(f"{row.name}: {row.command}  ({time.perf_counter() - start:.1f} s)")
                print("   ", "; ".join(problems) or "passed")
                lines = (process.stdout + process.stderr).strip().splitlines()
                print("    | " + "\n    | ".join(lines[-6:]))
        print(f"{table}: {passed} of {total} rows passed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
