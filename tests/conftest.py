"""Shared fixtures and builders. pytest-xdist runs the tests on all cores."""

import os

# One thread per worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests with two threads must not spin on a core that another worker needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from rich import reconfigure

import hrseg
from tests.camvid_tree import make_camvid
from tests.hub_server import HubServer

torch.set_num_threads(1)


# The folders and files of the longest tests.
LONG = ("faults", "scripts", "export", "training", "commands", "test_notebooks.py", "plugins")


def pytest_xdist_auto_num_workers():
    """Run one process more than cores, because some tests wait for timeouts and signals."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items):
    """Start the longest tests first, so that no process runs one at the end while others idle."""
    items.sort(key=lambda item: not {*item.path.parts} & {*LONG})


@pytest.fixture(autouse=True)
def console():
    """Give each test a new rich console, also after a test with an open live display."""
    reconfigure()


@pytest.fixture
def here(monkeypatch):
    """Run the work of the benchmarks in this process, with a console of 80 columns."""
    function = "hrseg.benchmark.measure.in_process"
    monkeypatch.setattr(function, lambda work, *arguments: work(*arguments))
    reconfigure(width=80)


@pytest.fixture
def camvid(tmp_path):
    return make_camvid(tmp_path / "camvid")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Run a server in place of the Hugging Face Hub, with an empty cache and without a token.

    The environment serves child processes. huggingface_hub reads it at its import, so that this
    process needs the constants. The functions bound to the global HfApi need its endpoint.
    `scan_cache_dir` and the timeout of `get_hf_file_metadata` keep their defaults of the import.
    """
    from huggingface_hub import constants, hf_api

    with HubServer() as server:
        settings = {
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
            "HF_TOKEN_PATH": str(tmp_path / "hub-token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_ETAG_TIMEOUT": 2,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
            monkeypatch.setenv(name, str(value))
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hf_api.api, "endpoint", server.url)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield server


def picture(size, seed=0):
    """Return an image of soft colours with mild noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC)).astype(np.int16)
    return (smooth + rng.integers(-9, 10, (*size, 3), np.int16)).clip(0, 255).astype(np.uint8)


def batch_of(image):
    """Return an image (H, W, C) as a batch of one, (1, C, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def save_image(path, array, **options):
    """Write an image file and the folders above it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def noise(count=4, size=(64, 64)):
    """Return items {image, mask, name}: random pixels, class 1 for a high red, some ignored."""
    draw, items = torch.Generator().manual_seed(0), []
    for index in range(count):
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=draw)
        mask = (image[0] > 127).byte().masked_fill(image[1] > 230, 255)
        items.append({"image": image, "mask": mask, "name": f"{index}.png"})
    return items


def tiny_task(names=("left", "right"), **arguments):
    """Return a SegmentationTask with an untrained HRNet-W18 small v1, with the same weights."""
    torch.manual_seed(0)
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=len(names), bn_momentum=0.1)
    return hrseg.SegmentationTask(model, names, **arguments)


def silent_trainer(folder, **arguments):
    """Return a CPU Trainer of one epoch without logger, checkpoints, bar and model summary."""
    import pytorch_lightning as pl  # takes seconds, which tests without a Trainer do not need

    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {**dict.fromkeys(silent, False), "max_epochs": 1, **arguments}
    return pl.Trainer(accelerator="cpu", default_root_dir=folder, **options)
