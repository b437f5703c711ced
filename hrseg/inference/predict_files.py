"""Prediction of files: images, videos and large images, with prefetch and resume."""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.inference.inputs import Source, read_pixels
from hrseg.inference.outputs import ENCODERS, Wanted, is_finished, mask_png, png, to_json
from hrseg.inference.predictor import Prediction, Predictor
from hrseg.inference.prefetch import Behind, map_ahead
from hrseg.inference.tiling import check_tiles, not_applied
from hrseg.inference.video import predict_video
from hrseg.utils.console import progress_bar, say
from hrseg.utils.files import PARTIAL, write_bytes
from hrseg.utils.memory import OutOfMemory
from hrseg.utils.signals import Stopped
from hrseg.visualize import legend

_MANIFEST = "predict.json"
_ON_SCREEN = 20


@dataclass
class Outcome:
    """What came of the inputs.

    Attributes:
        done: the name of each image, and of the video of each frame, that was predicted.
        seconds: how long it took.
        faults: input -> why there is nothing of it.
        notes: what was done to inputs -> which.
    """

    done: list[str] = field(default_factory=list)
    seconds: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def predict_files(
    predictor: Predictor,
    sources: Sequence[Source],
    out: Path,
    wanted: Wanted,
    checkpoint: Path,
    resume: bool = False,
) -> Outcome:
    """Predict files into `out` and print what was done; arguments as of `predict_sources`.

    Raises:
        ConfigError: tiles that the model cannot do, and as of `predict_sources`.
    """
    check_tiles(wanted.tile, wanted.overlap)
    predictor.check(tiles=any(source.kind == "tiles" for source in sources))
    kinds = Counter(source.kind for source in sources)
    counts = ", ".join(f"{count} {_KINDS[kind][count > 1]}" for kind, count in kinds.items())
    device, precision = predictor.device, predictor.precision
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    say(f"predict {counts} by {checkpoint}; {device}{threads}, precision {precision}")
    say(str(predictor.protocol))
    outcome = predict_sources(predictor, sources, out, wanted, checkpoint, resume)
    show_outcome(outcome)
    say(f"predictions: {out}")
    return outcome


_KINDS = {
    "image": ("image", "images"),
    "video": ("video", "videos"),
    "tiles": ("image in tiles", "images in tiles"),
}


def predict_sources(
    predictor: Predictor,
    sources: Sequence[Source],
    out: Path,
    wanted: Wanted,
    checkpoint: Path,
    resume: bool = False,
) -> Outcome:
    """Predict files into `out`; what cannot be read is reported at the end, by name.

    Args:
        predictor: the model.
        sources: what to predict.
        out: folder for masks/, overlays/, probabilities/, polygons/, legend.png, predict.json.
        wanted: what is written.
        checkpoint: the file that the predictor came from, for predict.json.
        resume: leave out what is finished: its outputs are there, and newer than the input.

    Raises:
        ConfigError: a full disk, or a folder to resume that other settings were used for.
    """
    settings = _settings(predictor, wanted, checkpoint)
    left = list(sources)
    if resume:
        _check_settings(out / _MANIFEST, settings)
        for partial in out.rglob(f"{PARTIAL}*"):
            partial.unlink()
        left = [source for source in sources if not is_finished(source, wanted.paths(out, source))]
        say(f"{len(sources) - len(left)} of {len(sources)} inputs are finished already")
    write_bytes(out / _MANIFEST, to_json(settings))
    write_bytes(out / "legend.png", png(legend(predictor.class_names, predictor.palette)))
    run = _Run(predictor, out, wanted)
    with run.bar:
        try:
            run.images([source for source in left if source.kind == "image"])
            for source in left:
                if source.kind != "image":
                    run.alone(source)
        except HrsegError as error:
            raise type(error)(f"{error}\n{run.where_it_stands()}") from error
        except (KeyboardInterrupt, Stopped):
            say(run.where_it_stands())
            raise
    outcome = run.finish()
    write_bytes(out / _MANIFEST, to_json({**settings, **_report(outcome, len(sources))}))
    return outcome


class _Run:
    """One call of `predict_sources`."""

    def __init__(self, predictor: Predictor, out: Path, wanted: Wanted) -> None:
        self.predictor, self.out, self.wanted = predictor, out, wanted
        self.outcome = Outcome()
        self.began = time.monotonic()
        self.bar = progress_bar()

    def images(self, sources: Sequence[Source]) -> None:
        """Predict images: two threads read ahead of the model, two write behind it."""
        task = self.bar.add_task("images", total=len(sources), visible=bool(sources))
        reading = map_ahead(lambda source: read_pixels(source.path), sources, workers=2, depth=4)
        with Behind(workers=2, depth=4) as writing:
            for source, read in reading:
                try:
                    pixels, notes = read.result()
                    prediction = self.predictor.segment(pixels, self.wanted.probabilities)
                except (DataError, OutOfMemory) as error:
                    self._fault(source, error)
                else:
                    writing.submit(self._write, source, prediction)
                    self._note(source, notes)
                self.bar.advance(task)

    def alone(self, source: Source) -> None:
        """Predict a video or a large image."""
        paths = self.wanted.paths(self.out, source)
        try:
            if source.kind == "video":
                notes = self._video(source, paths["overlays"])
            else:
                notes = self._tiles(source, paths)
        except (DataError, OutOfMemory) as error:
            self._fault(source, error)
        else:
            asked = [what for what in ("probabilities", "polygons") if getattr(self.wanted, what)]
            self._note(source, [*notes, *(f"no {what} of videos and tiles" for what in asked)])

    def _video(self, source: Source, target: Path) -> list[str]:
        task = self.bar.add_task(source.path.name, total=None)
        folder = self.out / "masks" / source.name

        def each(number: int, prediction: Prediction) -> None:
            if self.wanted.frames:
                write_bytes(folder / f"{number + 1:06}.png", mask_png(prediction))
            self.outcome.done.append(source.name)
            self.bar.advance(task)

        return predict_video(self.predictor, source.path, target, each)

    def _tiles(self, source: Source, paths: dict[str, Path]) -> list[str]:
        # GDAL is in no smaller image's way.
        from hrseg.inference.large_images import predict_big

        task = self.bar.add_task(source.path.name, total=None)
        notes = predict_big(
            self.predictor,
            source.path,
            paths["masks"],
            self.wanted.tile,
            self.wanted.overlap,
            overlay=paths.get("overlays"),
            progress=lambda done, total: self.bar.update(task, completed=done, total=total),
        )
        self.outcome.done.append(source.name)
        said = not_applied(self.predictor.protocol)
        return [*notes, said] if said else notes

    def _write(self, source: Source, prediction: Prediction) -> None:
        for what, path in self.wanted.paths(self.out, source).items():
            write_bytes(path, ENCODERS[what](prediction))
        self.outcome.done.append(source.name)

    def _fault(self, source: Source, error: HrsegError) -> None:
        self.outcome.faults[str(source.path)] = str(error)

    def _note(self, source: Source, notes: Sequence[str]) -> None:
        for note in notes:
            self.outcome.notes[note].append(str(source.path))

    def where_it_stands(self) -> str:
        """Return what to say when it stops early."""
        return f"{len(self.outcome.done)} are done; `--resume` goes on after them."

    def finish(self) -> Outcome:
        """Return what came of it."""
        self.outcome.seconds = time.monotonic() - self.began
        return self.outcome


def show_outcome(outcome: Outcome) -> None:
    """Say what was done to inputs, which could not be read, and how fast it was."""
    for note, paths in outcome.notes.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        say(f"note: {note}: {paths[0]}{more}")
    for path, fault in list(outcome.faults.items())[:_ON_SCREEN]:
        say(f"fault: {fault if path in fault else f'{path}: {fault}'}")
    if len(outcome.faults) > _ON_SCREEN:
        say(f"... and {len(outcome.faults) - _ON_SCREEN} more, in {_MANIFEST}")
    count, rate = len(outcome.done), len(outcome.done) / (outcome.seconds or 1.0)
    failed = f", {len(outcome.faults)} could not be read" if outcome.faults else ""
    images = "image" if count == 1 else "images"
    say(f"{count} {images} in {outcome.seconds:.0f} s, {rate:.3g} images/s{failed}")


def _settings(predictor: Predictor, wanted: Wanted, checkpoint: Path) -> dict[str, Any]:
    """Return what outputs depend on."""
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


def _check_settings(manifest: Path, settings: dict[str, Any]) -> None:
    """Refuse to mix outputs that were made by other settings with new ones."""
    if not manifest.is_file():
        return
    try:
        earlier = json.loads(manifest.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        earlier = {}
    earlier = earlier if isinstance(earlier, dict) else {}
    for key in ("sha256", "model", "class_names", "precision", "protocol", "wanted"):
        if earlier.get(key) != settings[key]:
            named = "checkpoint" if key == "sha256" else key
            raise ConfigError(
                f"--resume: {manifest.parent} was made with {named} {earlier.get(named)}, "
                f"now it is {settings[named]}.\n"
                "Keep to the settings of the first call, or predict into another folder (--out)."
            )


def _report(outcome: Outcome, count: int) -> dict[str, Any]:
    return {"inputs": count, "faults": outcome.faults, "notes": dict(outcome.notes)}
