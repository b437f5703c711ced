"""Prediction of files: images, videos and large images, with prefetch and resume."""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.inference.inputs import MANIFEST, Source, check_out, read_pixels
from hrseg.inference.outputs import OutputOptions, encoded
from hrseg.inference.polygons import write_coco
from hrseg.inference.prediction import Prediction
from hrseg.inference.predictor import Predictor
from hrseg.inference.prefetch import prefetch_map
from hrseg.inference.tiling import skipped_steps
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
    options: OutputOptions,
    checkpoint: Path,
    resume: bool = False,
) -> dict[str, str]:
    """Predict files into `out` and print a summary.

    Args:
        predictor: the model.
        sources: the inputs.
        out: the folder of the outputs.
        options: of the outputs.
        checkpoint: the file of the model, recorded in predict.json.
        resume: skip inputs whose outputs exist and are newer.

    Returns:
        The error message of each failed input.

    Raises:
        ConfigError: a full disk, tiles with a model that does not support them, or a folder `out`
            with other files or with predictions of another checkpoint or protocol.
    """
    check_out(out)
    tiles = any(source.kind == "tiles" for source in sources)
    predictor.check(tiles, options.needs_confidence)
    kinds = Counter(source.kind for source in sources)
    counts = ", ".join(
        f"{count} {_KINDS[kind].format('s' * (count > 1))}" for kind, count in kinds.items()
    )
    device = predictor.device
    device += f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    echo(f"predicting {counts} with {checkpoint}; {device}, precision {predictor.precision}")
    echo(str(predictor.protocol))
    settings = _settings(predictor, options, checkpoint)
    remaining = list(sources)
    _check_settings(out / MANIFEST, settings, resume)
    if resume:
        for partial in out.rglob(f"{PARTIAL}*"):
            partial.unlink()
        remaining = [source for source in sources if not _is_finished(source, out, options)]
        echo(f"{len(sources) - len(remaining)} of {len(sources)} inputs are already finished")
    write_json(out / MANIFEST, settings)
    picture = Image.fromarray(legend(predictor.class_names, predictor.palette))
    write_bytes(out / "legend.png", encoded(picture, "PNG"))
    start = time.monotonic()
    run = _Run(predictor, out, options)
    run.predict(remaining)
    if options.polygons == "coco":
        run.write_coco(sources)
    results = {"inputs": len(sources), "faults": run.faults, "notes": run.notes}
    write_json(out / MANIFEST, {**settings, **results})
    run.show(time.monotonic() - start)
    echo(f"predictions: {out}")
    return run.faults


def _is_finished(source: Source, out: Path, options: OutputOptions) -> bool:
    source_time = source.path.stat().st_mtime
    paths = options.paths(out, source).values()
    return all(path.is_file() and path.stat().st_mtime >= source_time for path in paths)


class _Run:
    """Prediction of files with one progress bar.

    Attributes:
        done: number of predicted images and frames.
        faults: input -> the error message.
        notes: note on a conversion or limit -> the inputs.
    """

    def __init__(self, predictor: Predictor, out: Path, options: OutputOptions) -> None:
        self.predictor, self.out, self.options = predictor, out, options
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
                state = f"{self.done} images were predicted. To continue: --resume"
                if isinstance(error, HrsegError):
                    raise type(error)(f"{error}\n{state}") from error
                echo(state)
                raise

    def _images(self, sources: Sequence[Source]) -> None:
        """Predict images, with two threads that read and two that write."""
        task = self.bar.add_task("images", total=len(sources), visible=bool(sources))
        options = self.options
        channels = self.predictor.channels
        decoded = prefetch_map(
            lambda source: read_pixels(source.path, channels), sources, workers=2, depth=4
        )

        def predictions() -> Iterator[tuple[Source, Prediction]]:
            for source, image in decoded:
                try:
                    pixels, notes = image.result()
                    yield (
                        source,
                        self.predictor.segment(
                            pixels, options.probabilities, options.needs_confidence
                        ),
                    )
                    self._note(source, notes)
                except (DataError, OutOfMemory) as error:
                    self.faults[str(source.path)] = str(error)
                self.bar.advance(task)

        for _, written in prefetch_map(self._write, predictions(), workers=2, depth=3):
            written.result()

    def _write(self, item: tuple[Source, Prediction]) -> None:
        source, prediction = item
        for kind, path in self.options.paths(self.out, source).items():
            write_bytes(path, self.options.encode(kind, prediction, source.path, path))
        self.done += 1

    def write_coco(self, sources: Sequence[Source]) -> None:
        """Write the polygons of all images, also those of an earlier call, from their masks."""
        masks = {
            (Path(source.name).parent / source.path.name).as_posix(): self.options.paths(
                self.out, source
            )["masks"]
            for source in sources
            if source.kind == "image" and str(source.path) not in self.faults
        }
        if masks:
            write_coco(self.out / "polygons" / "coco.json", masks, self.predictor.class_names)

    def _large(self, source: Source) -> None:
        """Predict a video or a large image."""
        try:
            notes = self._video(source) if source.kind == "video" else self._tiles(source)
        except (DataError, OutOfMemory) as error:
            self.faults[str(source.path)] = str(error)
            return
        kinds = ("probabilities", "polygons", *["confidence"] * (source.kind == "video"))
        missing = [kind for kind in kinds if getattr(self.options, kind)]
        self._note(source, [*notes, *(f"no {kind} of videos and tiles" for kind in missing)])

    def _video(self, source: Source) -> list[str]:
        task = self.bar.add_task(source.path.name, total=None)
        folder = self.out / "masks" / source.name

        def on_frame(number: int, prediction: Prediction) -> None:
            if self.options.frames:
                mask = self.options.mask_png(prediction)
                write_bytes(folder / f"{number + 1:06}.png", mask)
            self.done += 1
            self.bar.advance(task)

        target = self.options.paths(self.out, source)["overlays"]
        pseudo = self.options.pseudo is not None
        return predict_video(self.predictor, source.path, target, on_frame, pseudo)

    def _tiles(self, source: Source) -> list[str]:
        # Imported here because GDAL is slow to import.
        from hrseg.inference.large_images import predict_big

        task = self.bar.add_task(source.path.name, total=None)
        paths = self.options.paths(self.out, source)
        notes = predict_big(
            self.predictor,
            source.path,
            paths["masks"],
            self.options.tile,
            self.options.overlap,
            overlay=paths.get("overlays"),
            progress=lambda done, total: self.bar.update(task, completed=done, total=total),
            confidence=paths.get("confidence"),
            pseudo=self.options.pseudo,
        )
        self.done += 1
        return [*notes, *skipped_steps(self.predictor.protocol)]

    def _note(self, source: Source, notes: Sequence[str]) -> None:
        for text in notes:
            self.notes[text].append(str(source.path))

    def show(self, seconds: float) -> None:
        """Print notes, faults and the rate."""
        for text, paths in self.notes.items():
            others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            note(f"{text}: {paths[0]}{others}")
        for path, message in self.faults.items():
            echo(f"fault: {message if path in message else f'{path}: {message}'}")
        failed = f", {len(self.faults)} failed" if self.faults else ""
        images, rate = "image" if self.done == 1 else "images", self.done / (seconds or 1.0)
        echo(f"{self.done} {images} in {seconds:.0f} s, {rate:.3g} images/s{failed}")


def _settings(predictor: Predictor, options: OutputOptions, checkpoint: Path) -> dict[str, Any]:
    """Return the settings that determine the outputs."""
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "checkpoint": str(checkpoint.absolute()),
        "sha256": digest,
        "model": predictor.model.architecture,
        "precision": predictor.precision,
        "protocol": predictor.protocol.to_dict(),
        "wanted": options.to_dict(),
        "class_names": predictor.class_names,
    }


def _check_settings(manifest: Path, settings: dict[str, Any], resume: bool) -> None:
    """Raise ConfigError if the outputs of an earlier call were made with other settings.

    With `resume` the options of the outputs must be the same as well.
    """
    earlier = read_object(manifest)
    if "wanted" in earlier:  # options that an earlier version did not have
        earlier["wanted"] = {**OutputOptions().to_dict(), **earlier["wanted"]}
    keys = ("sha256", "model", "class_names", "precision", "protocol", *["wanted"] * resume)
    for key in keys if earlier else ():
        if earlier.get(key) != settings[key]:
            name = "checkpoint" if key == "sha256" else key
            raise ConfigError(
                f"{manifest.parent} was made with {name} {earlier.get(name)}; "
                f"this call has {settings[name]}.\n"
                "Expected: the settings of the first call. Fix: --out OTHER_FOLDER"
            )
