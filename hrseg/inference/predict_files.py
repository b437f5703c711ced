"""Prediction of files: images, videos and large images, with prefetch, resume and shards."""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hrseg.errors import DataError, HrsegError
from hrseg.inference.inputs import Source, read_pixels
from hrseg.inference.manifest import (
    MANIFEST,
    Shard,
    check_out,
    check_settings,
    merge,
    read_manifests,
    settings_of,
)
from hrseg.inference.outputs import OutputOptions, encoded
from hrseg.inference.polygons import write_coco
from hrseg.inference.prediction import Prediction
from hrseg.inference.predictor import Predictor
from hrseg.inference.prefetch import prefetch_map
from hrseg.inference.tiling import skipped_steps
from hrseg.inference.video import predict_video
from hrseg.utils.console import echo, note, progress_bar
from hrseg.utils.files import PARTIAL, write_bytes, write_json
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
    shard: Shard | None = None,
) -> dict[str, str]:
    """Predict files into `out` and print a summary.

    Args:
        predictor: the model.
        sources: the inputs of all shards.
        out: the folder of the outputs.
        options: of the outputs.
        checkpoint: the file of the model, recorded in predict.json.
        resume: skip inputs whose outputs exist and are newer.
        shard: the part of the inputs to predict; None: all. The shard that ends last writes the
            files that describe all inputs.

    Returns:
        The error message of each failed input.

    Raises:
        ConfigError: a full disk, tiles with a model that does not support them, or a folder `out`
            with other files or with predictions of another checkpoint or protocol.
    """
    shard = shard or Shard()
    check_out(out)
    selected = [source for source in sources if shard.has(source.relative_path)]
    tiles = any(source.kind == "tiles" for source in selected)
    predictor.check(tiles, options.needs_confidence)
    _print_start(predictor, selected, checkpoint, shard)
    settings = settings_of(predictor, options, checkpoint)
    check_settings(out, settings, resume, shard)
    run = _Run(predictor, out, options, settings, shard)
    remaining = selected
    if resume:
        remaining = run.unfinished(selected)
        echo(f"{len(selected) - len(remaining)} of {len(selected)} inputs are already finished")
    run.save()
    picture = Image.fromarray(legend(predictor.class_names, predictor.palette))
    write_bytes(out / "legend.png", encoded(picture, "PNG"), writer=shard.writer)
    start = time.monotonic()
    run.predict(remaining)
    run.save(inputs=len(selected), faults=run.faults)
    run.show(time.monotonic() - start)
    check_settings(out, settings, resume, shard)  # those of shards that started meanwhile
    run.complete(sources)
    echo(f"predictions: {out}")
    return run.faults


def _print_start(
    predictor: Predictor, sources: Sequence[Source], checkpoint: Path, shard: Shard
) -> None:
    kinds = Counter(source.kind for source in sources)
    counts = [f"{count} {_KINDS[kind].format('s' * (count > 1))}" for kind, count in kinds.items()]
    inputs = ", ".join(counts) or "no input"
    part = f" of shard {shard}" if shard.count > 1 else ""
    device = predictor.device
    device += f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    echo(f"predicting {inputs}{part} with {checkpoint}; {device}, precision {predictor.precision}")
    echo(str(predictor.protocol))


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

    def __init__(
        self,
        predictor: Predictor,
        out: Path,
        options: OutputOptions,
        settings: dict[str, Any],
        shard: Shard,
    ) -> None:
        self.predictor, self.out, self.options = predictor, out, options
        self.settings, self.shard = settings, shard
        self.done = 0
        self.faults: dict[str, str] = {}
        self.notes: dict[str, list[str]] = defaultdict(list)
        self.bar = progress_bar()

    def unfinished(self, sources: Sequence[Source]) -> list[Source]:
        """Return the sources without outputs; keep the notes on the others."""
        if self.shard.count == 1:
            for partial in self.out.rglob(f"{PARTIAL}*"):
                partial.unlink()
        finished = {source for source in sources if _is_finished(source, self.out, self.options)}
        paths = {str(source.path) for source in finished}
        for text, noted in merge(read_manifests(self.out).values())["notes"].items():
            if kept := [path for path in noted if path in paths]:
                self.notes[text] = kept
        return [source for source in sources if source not in finished]

    def save(self, **results: Any) -> None:
        """Write the manifest: settings, notes, and the `results` of a finished call."""
        content = {**self.settings, **results, "notes": self.notes}
        write_json(self.out / self.shard.manifest, content, writer=self.shard.writer)

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
                self.save()
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
                    prediction = self.predictor.segment(
                        pixels, options.probabilities, options.needs_confidence
                    )
                    self._note(source, notes)
                    yield source, prediction
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

    def complete(self, sources: Sequence[Source]) -> None:
        """Write the files that describe all inputs, if the other shards have finished.

        Two shards that end at once both write the same bytes.
        """
        manifests = read_manifests(self.out)
        results = [manifests.get(self.out / name, {}) for name in self.shard.all_manifests]
        finished = [result for result in results if "inputs" in result]
        if len(finished) < self.shard.count:
            state = f"finished shards: {len(finished)} of {self.shard.count}"
            echo(f"{state}; the last one writes {MANIFEST}")
            return
        merged = merge(finished)
        if merged["inputs"] != len(sources):
            note(
                f"the shards had {merged['inputs']} inputs, and now there are {len(sources)}. "
                "To complete: --resume without --shard"
            )
            return
        if self.options.polygons == "coco":
            self._write_coco(sources, merged["faults"])
        write_json(self.out / MANIFEST, {**self.settings, **merged}, writer=self.shard.writer)
        for path in manifests.keys() - {self.out / MANIFEST}:
            path.unlink(missing_ok=True)

    def _write_coco(self, sources: Sequence[Source], faults: Collection[str]) -> None:
        """Write the polygons of all images, also those of an earlier call, from their masks."""
        masks = {
            source.relative_path: self.options.paths(self.out, source)["masks"]
            for source in sources
            if source.kind == "image" and str(source.path) not in faults
        }
        if masks:
            path = self.out / "polygons" / "coco.json"
            write_coco(path, masks, self.predictor.class_names, self.shard.writer)

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
