"""Base DataModule of the data sets: loaders, samplers, and checks before training."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from hrseg.data.bands import check_options, dtype_or_none, measured_channels
from hrseg.data.cache import Cache
from hrseg.data.checksums import Manifest
from hrseg.data.dataset import Files, SegmentationDataset, check_files
from hrseg.data.masks import ReadMask
from hrseg.data.options import DataOptions, complete
from hrseg.data.samplers import (
    ClassDraw,
    EpochSampler,
    EvaluationSampler,
    TrainSampler,
    images_by_class,
)
from hrseg.data.transforms import Pipeline, TrainTransform
from hrseg.data.workers import WatchedLoader
from hrseg.errors import ConfigError, DataError
from hrseg.utils.augmentations import NEEDS_RGB
from hrseg.utils.channels import Channels
from hrseg.utils.text import some


class SegmentationDataModule(LightningDataModule):
    """Base of the data sets: a subclass defines class facts, `files` and `mask_reader`.

    After `setup`, `train_dataset` has augmented crops; `val_dataset` and `test_dataset` have whole
    images. Batches have the form of `hrseg.SegmentationTask`.

    Args:
        root: folder of the data set.
        transform: custom augmentation of the crops, called after `augment`: an albumentations
            pipeline, or a function (image=, mask=) -> {"image", "mask"}, uint8 of the crop's size.
            Masks have to be padded with 255 (`fill_mask=255`). Random draws of albumentations use
            the seed of the sample.
        options: see `DataOptions`.
    """

    class_names: tuple[str, ...] = ()  # one per train id
    palette: tuple[tuple[int, int, int], ...] = ()  # RGB colour of each class
    flip_pairs: tuple[tuple[int, int], ...] = ()  # classes that swap when an image is mirrored
    class_weights: tuple[float, ...] | None = None  # loss weights published with the data set
    expected_images: ClassVar[Mapping[str, int]] = {}  # official number of images of each split
    unions: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # {"trainval": ("train", "val")}
    submission_ids: tuple[int, ...] | None = None  # raw id of each class for a benchmark's server
    image_prefix: str = ""  # beginning of the stems of images, not of masks
    image_suffix: str = ""  # end of the stems of images, not of masks
    mask_prefix: str = ""  # beginning of the stems of masks, not of images
    mask_suffix: str = ""  # end of the stems of masks, not of images

    def __init__(
        self, root: str, transform: Pipeline | None = None, **options: Unpack[DataOptions]
    ) -> None:
        super().__init__()
        chosen = complete(options)
        cache, manifest = chosen["cache"], chosen["manifest"]
        self.root = Path(root).expanduser()
        self.batch_size = chosen["batch_size"]
        self.workers = chosen["workers"]
        self.worker_timeout = chosen["worker_timeout"]
        self.on_error = chosen["on_error"]
        self.manifest = Path(manifest).expanduser() if manifest is not None else None
        self.seed = chosen["seed"]
        self.train_split = chosen["train_split"]
        self.val_split = chosen["val_split"]
        self.test_split = chosen["test_split"]
        names = ("crop_size", "scales", "base_size", "flip", "photometric", "squash", "augment")
        augmentation: dict[str, Any] = {name: chosen.get(name) for name in names}
        self.transform = TrainTransform(
            flip_pairs=self.flip_pairs, pipeline=transform, **augmentation
        )
        self.bands, self.value_range = chosen["channels"], chosen["value_range"]
        self.channels: Channels | None = None  # of the images; None: RGB uint8
        self._settled = False  # whether `channels` is known
        self.class_uniform = chosen["class_uniform"]
        self.cache = Path(cache).expanduser() if cache is not None else None
        self.class_draw: ClassDraw | None = None
        self.resumed: dict[str, int] = {}
        self.train_loader: WatchedLoader[dict[str, Any]] | None = None
        self.train_dataset: SegmentationDataset | None = None
        self.val_dataset: SegmentationDataset | None = None
        self.test_dataset: SegmentationDataset | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, without ignored pixels."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Number of channels of the images."""
        return self.channels.count if self.channels else len(self.bands or (1, 2, 3))

    def use_channels(self, channels: Channels | None) -> None:
        """Read images with the channels of a checkpoint; None: 8-bit RGB.

        Raises:
            ConfigError: the options of this data set differ from the checkpoint.
        """
        check_options(self.bands, self.value_range, channels)
        self.channels, self._settled = channels, True
        self._refuse_color_changes()

    def settle_channels(self, files: Files) -> None:
        """Measure the channels of the training images once; `files` replace missing ones.

        Raises:
            ConfigError: changes of colour of other images than 8-bit RGB.
            DataError: an image lacks a band, or values of another type have no `value_range`.
        """
        if self._settled or not files:
            return
        default = self.bands is None and self.value_range is None
        if not default or dtype_or_none(files[0][0]) not in ("uint8", None):
            with suppress(DataError):  # a data set for evaluation only
                parts = self.unions.get(self.train_split, (self.train_split,))
                files = [pair for part in parts for pair in self.files(part)]
            images = [image for image, _ in files]
            self.channels = measured_channels(images, self.bands, self.value_range)
        self._settled = True
        self._refuse_color_changes()

    def _refuse_color_changes(self) -> None:
        if self.channels is not None and self.transform.rgb_only:
            names = " and ".join(self.transform.rgb_only)
            raise ConfigError(
                f"{names} changes the colours of 8-bit RGB, but the images are {self.channels}.\n"
                "Expected: no change of colours. Fix: data.photometric=0, and data.augment without "
                f"{' and '.join(NEEDS_RGB)}."
            )

    def files(self, split: str) -> Files:
        """Return the (image, mask) paths of a split, in a fixed order; None for no mask.

        Raises:
            DataError: missing folders, no images, or unpaired files.
        """
        raise NotImplementedError

    def mask_reader(self) -> ReadMask:
        """Return a function: path of a mask -> train ids (H, W), 255 = ignore."""
        raise NotImplementedError

    def dataset(self, split: str, train: bool = False) -> SegmentationDataset:
        """Return the dataset of a split: augmented crops if `train`, else whole images."""
        files = [pair for part in self.unions.get(split, (split,)) for pair in self.files(part)]
        transform = self.transform if train else None
        dataset = SegmentationDataset(files, self.mask_reader(), transform, self.seed)
        dataset.skips = self.on_error == "skip"
        self.settle_channels(files)
        dataset.channels = self.channels
        if self.manifest is not None:
            dataset.manifest = Manifest.read(self.manifest, self.root)
        return dataset

    def check(self, stage: str = "fit", devices: int = 1, accumulated: int = 1) -> None:
        """Check the data before a run: pairs, every header, a sample of pixels, and the overlap.

        Args:
            stage: "fit" checks the training and validation splits; "validate" and "test" check
                their own split.
            devices: number of processes that share a batch.
            accumulated: number of accumulated batches per step.

        Raises:
            DataError: the first fault, with the fix.
            ConfigError: fewer training images than one batch, or an indivisible batch.
        """
        self.prepare_data()
        self._pair(stage)
        for split, dataset in (
            (self.test_split, self.test_dataset),
            (self.val_split, self.val_dataset),
            (self.train_split, self.train_dataset),
        ):
            if dataset is not None:
                bare = [image for image, mask in dataset.files if mask is None]
                if bare and dataset is not self.test_dataset:
                    raise DataError(
                        f"{len(bare)} of {len(dataset)} images of split {split} have no mask, e.g. "
                        f"{bare[0]}.\nExpected: a split with masks to train or score on.\n"
                        "Fix: add the masks. `hrseg test` predicts without masks."
                    )
                self._warn_of_absent_classes(check_files(dataset), dataset)
                if note := self.shortfall(split, len(dataset)):
                    warnings.warn(note, stacklevel=2)
        if self.train_dataset is not None:
            self._batch_per_step(devices, accumulated)
            self._check_overlap()
        self.setup(stage)  # last, as class_uniform reads every mask

    def _warn_of_absent_classes(self, ids: set[int], dataset: SegmentationDataset) -> None:
        """Warn of the user's classes without a pixel in the sample of training masks."""
        if dataset is not self.train_dataset or not dataset.files or type(self).class_names:
            return
        if absent := [name for train, name in enumerate(self.class_names) if train not in ids]:
            warnings.warn(
                f"classes without a pixel in a sample of the training masks: {some(absent, 5)}. "
                "`hrseg data check` counts all masks",
                stacklevel=2,
            )

    def shortfall(self, split: str, count: int) -> str | None:
        """Return a note if the number of images of a split is not the official number."""
        expected = self.expected_images.get(split, count)
        if expected == count:
            return None
        return f"split {split} in {self.root}: {count} images, the official data set has {expected}"

    def setup(self, stage: str | None = None) -> None:
        """Pair the files of a stage's splits; for `class_uniform` read every training mask."""
        self._pair(stage)
        if self.train_dataset is not None and self.class_uniform and self.class_draw is None:
            train = self.train_dataset
            images = images_by_class(train.files, train.mask_ids, self.class_names, self.workers)
            self.class_draw = ClassDraw(self.class_uniform, images)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return this process's share of the shuffled batches of crops, without a partial batch."""
        assert self.train_dataset is not None, "call setup('fit') first"
        rank, world = self._rank()
        per_step = self._batch_per_step(
            world, self.trainer.accumulate_grad_batches if self.trainer else 1
        )
        sampler = TrainSampler(
            self.train_dataset, world, rank, self.seed, self.batch_size, self.class_draw
        )
        self.train_loader = self._loader(self.train_dataset, sampler, per_step)
        if self.resumed:
            self.train_loader.resume(self.resumed)
        return self.train_loader

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return this process's share of the whole images, one at a time."""
        return self._evaluation_loader(self.val_dataset)

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return this process's share of the whole images of the test split, one at a time."""
        return self._evaluation_loader(self.test_dataset)

    def state_dict(self) -> dict[str, int]:
        """Return the resume position in the training data, which Lightning saves in checkpoints."""
        # Lightning restores a loader's state too late: `estimated_stepping_batches` has already
        # started to read the first epoch.
        return self.train_loader.position() if self.train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume the training loader at a result of `state_dict`."""
        self.resumed = state_dict

    def _pair(self, stage: str | None) -> None:
        if stage == "test":
            self.test_dataset = self.test_dataset or self.dataset(self.test_split)
            self.test_dataset.skips = False  # a submission needs a mask of every image
            return
        if self.val_dataset is None:
            self.val_dataset = self._cached(self.dataset(self.val_split))
        if self.train_dataset is None and stage in ("fit", None):
            self.train_dataset = self._cached(self.dataset(self.train_split, train=True))

    def _cached(self, dataset: SegmentationDataset) -> SegmentationDataset:
        """Make the dataset read from the cache, if set, after a check of the cache."""
        if self.cache is not None:
            cache = Cache(self.cache, self.root, dataset.read_mask, dataset.channels)
            cache.check(dataset.files)
            for pair in dataset.files if dataset.manifest else ():
                for path, digest in zip(pair, cache.entry(pair[0]).sources, strict=False):
                    if dataset.manifest and path is not None:
                        dataset.manifest.compare(path, digest)
            dataset.cache = cache
        return dataset

    def _evaluation_loader(
        self, dataset: SegmentationDataset | None
    ) -> WatchedLoader[dict[str, Any]]:
        assert dataset is not None, "call setup first"
        rank, world = self._rank()
        return self._loader(dataset, EvaluationSampler(dataset, world, rank), 1)

    def _loader(
        self, dataset: SegmentationDataset, sampler: EpochSampler, batch_size: int
    ) -> WatchedLoader[dict[str, Any]]:
        return WatchedLoader(
            dataset,
            self.worker_timeout,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.workers,
            drop_last=dataset.transform is not None,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
            # A generator per loader, so that the number of loaders does not change random draws.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _rank(self) -> tuple[int, int]:
        """Return (rank, number) of the processes that share an epoch."""
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def _batch_per_step(self, devices: int, accumulated: int) -> int:
        """Return the batch size of one device and one forward pass."""
        shares = devices * accumulated
        if self.batch_size % shares:
            raise ConfigError(
                f"data.batch_size {self.batch_size} is global and cannot be divided by {devices} "
                f"devices x {accumulated} accumulated batches.\n"
                f"Expected: a multiple of {shares}. Fix: change it, or the number of devices."
            )
        count = len(self.train_dataset or ())
        if count < self.batch_size:
            raise ConfigError(
                f"{count} training images in {self.root} are fewer than one batch of "
                f"{self.batch_size}.\nExpected: at least one batch. "
                f"Fix: lower data.batch_size to {count} or less, or add images."
            )
        return self.batch_size // shares

    def _check_overlap(self) -> None:
        assert self.train_dataset is not None and self.val_dataset is not None
        train = {image.resolve() for image, _ in self.train_dataset.files}
        both = [image for image, _ in self.val_dataset.files if image.resolve() in train]
        if both and self.val_split in self.unions.get(self.train_split, ()):
            warnings.warn(
                f"split {self.train_split} contains {self.val_split}: scores are too high for new "
                "images",
                stacklevel=2,
            )
        elif both:
            raise DataError(
                f"{len(both)} images are in the training and in the validation split, e.g. "
                f"{both[0]}.\nExpected: different images, as scores would be too high.\n"
                "Fix: remove them from one of the splits."
            )
