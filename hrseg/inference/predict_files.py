"""Prediction of files: images, videos and large images, with prefetch and resume."""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.inference.inputs import MANIFEST, Source, check_out, read_pixels
from hrseg.inference.outputs import ENCODERS, Wanted, encoded
from hrseg.inference.predictor import Prediction, Predictor
from hrseg.inference.prefetch import map_ahead
from hrseg.inference.tiling import not_applied
from hrseg.inference.video import predict_video
from hrseg.utils.console import echo, note, progress_bar
from hrseg.utils.files import PARTIAL, read_object, write_bytes, write_json
from hrseg.utils.memory import OutOfMemory
from hrseg.utils.signals import Stopped
from hrseg.visualize import legend

_KINDS = {"image": "image{}", "video": "video{}", "tiles": "image{} in tiles"}


def predict_files(
    predictor: Predictor,
    sources: Sequence[Source],
    out: Path,
    wanted: Wanted,
    checkpoint: Path,
    resume: bool = False,
) -> dict[str, str]:
    """Predict files into `out` and print a summary; return the reason for each without an output.

    `checkpoint` is the file of the predictor, for predict.json. `resume` skips inputs whose outputs
    exist and are newer.

    Raises:
        ConfigError: a full disk, tiles that the model cannot do, or a folder `out` with files of
            others or with predictions of another checkpoint or protocol.
    """
    check_out(out)
    predictor.check(tiles=any(source.kind == "tiles" for source in sources))
    kinds = Counter(source.kind for source in sources)
    counts = ", ".join(
        f"{count} {_KINDS[kind].format('s' * (count > 1))}" for kind, count in kinds.items()
    )
    device = predictor.device
    device += f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    echo(f"predict {counts} by {checkpoint}; {device}, precision {predictor.precision}")
    echo(str(predictor.protocol))
    settings = _settings(predictor, wanted, checkpoint)
    left = list(sources)
    _check_settings(out / MANIFEST, settings, resume)
    if resume:
        for partial in out.rglob(f"{PARTIAL}*"):
            partial.unlink()
        left = [source for source in sources if not _is_finished(source, out, wanted)]
        echo(f"{len(sources) - len(left)} of {len(sources)} inputs are finished already")
    write_json(out / MANIFEST, settings)
    picture = Image.fromarray(legend(predictor.class_names, predictor.palette))
    write_bytes(out / "legend.png", encoded(picture, "PNG"))
    began = time.monotonic()
    run = _Run(predictor, out, wanted)
    run.predict(left)
    results = {"inputs": len(sources), "faults": run.faults, "notes": run.notes}
    write_json(out / MANIFEST, {**settings, **results})
    run.show(time.monotonic() - began)
    echo(f"predictions: {out}")
    return run.faults


def _is_finished(source: Source, out: Path, wanted: Wanted) -> bool:
    changed = source.path.stat().st_mtime
    paths = wanted.paths(out, source).values()
    return all(path.is_file() and path.stat().st_mtime >= changed for path in paths)


class _Run:
    """Prediction of files with one progress bar.

    Attributes:
        done: number of predicted images and frames.
        faults: input -> the reason why it has no output.
        notes: conversion or limit -> its inputs.
    """

    def __init__(self, predictor: Predictor, out: Path, wanted: Wanted) -> None:
        self.predictor, self.out, self.wanted = predictor, out, wanted
        self.done = 0
        self.faults: dict[str, str] = {}
        self.notes: dict[str, list[str]] = defaultdict(list)
        self.bar = progress_bar()

    def predict(self, sources: Sequence[Source]) -> None:
        with self.bar:
            try:
                self._images([source for source in sources if source.kind == "image"])
                for source in sources:
                    if source.kind != "image":
                        self._large(source)
            except (HrsegError, KeyboardInterrupt, Stopped) as error:
                state = f"{self.done} are done; `--resume` continues after them."
                if isinstance(error, HrsegError):
                    raise type(error)(f"{error}\n{state}") from error
                echo(state)
                raise

    def _images(self, sources: Sequence[Source]) -> None:
        """Predict images: two threads read ahead of the model, two write behind it."""
        task = self.bar.add_task("images", total=len(sources), visible=bool(sources))
        reading = map_ahead(lambda source: read_pixels(source.path), sources, workers=2, depth=4)

        def predictions() -> Iterator[tuple[Source, Prediction]]:
            for source, read in reading:
                try:
                    pixels, notes = read.result()
                    yield source, self.predictor.segment(pixels, self.wanted.probabilities)
                    self._note(source, notes)
                except (DataError, OutOfMemory) as error:
                    self.faults[str(source.path)] = str(error)
                self.bar.advance(task)

        for _, written in map_ahead(self._write, predictions(), workers=2, depth=3):
            written.result()

    def _write(self, item: tuple[Source, Prediction]) -> None:
        source, prediction = item
        for kind, path in self.wanted.paths(self.out, source).items():
            write_bytes(path, ENCODERS[kind](prediction))
        self.done += 1

    def _large(self, source: Source) -> None:
        """Predict a video or a large image."""
        try:
            notes = self._video(source) if source.kind == "video" else self._tiles(source)
        except (DataError, OutOfMemory) as error:
            self.faults[str(source.path)] = str(error)
            return
        asked = [kind for kind in ("probabilities", "polygons") if getattr(self.wanted, kind)]
        self._note(source, [*notes, *(f"no {kind} of videos and tiles" for kind in asked)])

    def _video(self, source: Source) -> list[str]:
        task = self.bar.add_task(source.path.name, total=None)
        folder = self.out / "masks" / source.name

        def each(number: int, prediction: Prediction) -> None:
            if self.wanted.frames:
                write_bytes(folder / f"{number + 1:06}.png", ENCODERS["masks"](prediction))
            self.done += 1
            self.bar.advance(task)

        target = self.wanted.paths(self.out, source)["overlays"]
        return predict_video(self.predictor, source.path, target, each)

    def _tiles(self, source: Source) -> list[str]:
        # Imported late: GDAL takes time.
        from hrseg.inference.large_images import predict_big

        task = self.bar.add_task(source.path.name, total=None)
        paths = self.wanted.paths(self.out, source)
        notes = predict_big(
            self.predictor,
            source.path,
            paths["masks"],
            self.wanted.tile,
            self.wanted.overlap,
            overlay=paths.get("overlays"),
            progress=lambda done, total: self.bar.update(task, completed=done, total=total),
        )
        self.done += 1
        return [*notes, *not_applied(self.predictor.protocol)]

    def _note(self, source: Source, notes: Sequence[str]) -> None:
        for text in notes:
            self.notes[text].append(str(source.path))

    def show(self, seconds: float) -> None:
        """Print notes, faults and the rate."""
        for text, paths in self.notes.items():
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            note(f"{text}: {paths[0]}{more}")
        for path, fault in self.faults.items():
            echo(f"fault: {fault if path in fault else f'{path}: {fault}'}")
        failed = f", {len(self.faults)} could not be read" if self.faults else ""
        images, rate = "image" if self.done == 1 else "images", self.done / (seconds or 1.0)
        echo(f"{self.done} {images} in {seconds:.0f} s, {rate:.3g} images/s{failed}")


def _settings(predictor: Predictor, wanted: Wanted, checkpoint: Path) -> dict[str, Any]:
    """Return the settings that the outputs depend on."""
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "checkpoint": str(checkpoint.absolute()),
        "sha256": digest,
        "model": predictor.model.architecture,
        "precision": predictor.precision,
        "protocol": predictor.protocol.to_dict(),
        "wanted": asdict(wanted),
        "class_names": predictor.class_names,
    }


def _check_settings(manifest: Path, settings: dict[str, Any], resume: bool) -> None:
    """Refuse to mix outputs of other settings with new ones; `resume` needs the same outputs."""
    earlier = read_object(manifest)
    keys = ("sha256", "model", "class_names", "precision", "protocol", *["wanted"] * resume)
    for key in keys if earlier else ():
        if earlier.get(key) != settings[key]:
            named = "checkpoint" if key == "sha256" else key
            raise ConfigError(
                f"{manifest.parent} was made with {named} {earlier.get(named)}, "
                f"now it is {settings[named]}.\n"
                "Expected: the settings of the first call. Fix: --out OTHER_FOLDER"
            )
