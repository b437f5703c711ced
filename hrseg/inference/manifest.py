"""Manifests of a prediction: predict.json, one file per shard, and the merge of their results."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from hrseg.errors import ConfigError
from hrseg.utils.files import read_object

if TYPE_CHECKING:
    from hrseg.inference.outputs import OutputOptions
    from hrseg.inference.predictor import Predictor

MANIFEST = "predict.json"  # settings and results of a prediction, in the folder of its outputs
OUTPUTS = ("masks", "overlays", "confidence", "probabilities", "polygons")  # subfolders


@dataclass(frozen=True)
class Shard:
    """A part of the inputs of a prediction. The prediction of all inputs is shard 1/1.

    Attributes:
        index: of the shard, from 1 to `count`.
        count: number of shards.
    """

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard of a text such as "3/16".

        Raises:
            ConfigError: an invalid text.
        """
        match = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
        shard = cls(*map(int, match.groups())) if match else cls(0, 16)
        if not 1 <= shard.index <= shard.count:
            raise ConfigError(
                f"--shard {text} is not a shard.\n"
                "Expected: I/N, shard I of N, with I from 1 to N. "
                f"Fix: --shard 1/{shard.count or 1}"
            )
        return shard

    def has(self, relative_path: str) -> bool:
        """Return whether an input belongs to the shard, by the SHA-256 of its relative path."""
        digest = hashlib.sha256(relative_path.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest) % self.count == self.index - 1

    @property
    def manifest(self) -> str:
        """The file name of the shard's manifest."""
        return f"predict-{self.index}-of-{self.count}.json" if self.count > 1 else MANIFEST

    @property
    def all_manifests(self) -> list[str]:
        """The file names of the manifests of all shards."""
        return [Shard(i + 1, self.count).manifest for i in range(self.count)]

    @property
    def writer(self) -> str:
        """The name of the shard as a `writer` of files that all shards write."""
        return f"{self.index}-of-{self.count}-" if self.count > 1 else ""

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class _Manifest(BaseModel):
    """The keys that a later call reads; `inputs` is added when the prediction has ended."""

    sha256: str
    wanted: dict[str, Any] = {}
    inputs: int | None = None
    faults: dict[str, str] = {}
    notes: dict[str, list[str]] = {}


def read_manifests(out: Path) -> dict[Path, dict[str, Any]]:
    """Return the manifests in a folder, without damaged files and files of other programs."""
    # predict.json is read last, because the last shard writes it before it removes the others.
    paths = [*sorted(out.glob("predict-*-of-*.json")), out / MANIFEST]
    return {path: content for path in paths if _is_manifest(content := read_object(path))}


def _is_manifest(content: dict[str, Any]) -> bool:
    try:
        _Manifest.model_validate(content)
    except ValidationError:
        return False
    return True


def check_out(out: Path) -> None:
    """Check that a prediction would overwrite only outputs of an earlier prediction.

    Raises:
        ConfigError: `out` contains folders such as masks/, but no manifest.
    """
    existing = [name for name in (*OUTPUTS, "legend.png") if (out / name).exists()]
    if existing and not read_manifests(out):
        raise ConfigError(
            f"--out {out} contains {', '.join(existing)}, which `hrseg predict` did not write: "
            f"{MANIFEST} is missing or damaged.\n"
            "Expected: a new folder, or that of an earlier prediction. Nothing was overwritten.\n"
            "Fix: --out OTHER_FOLDER"
        )


def merge(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum of inputs, and the faults and notes, in an order that no shard determines."""
    inputs, faults, notes = 0, dict[str, str](), dict[str, set[str]]()
    for result in results:
        inputs += result.get("inputs", 0)
        faults |= result.get("faults", {})
        for text, paths in result.get("notes", {}).items():
            notes.setdefault(text, set()).update(paths)
    sorted_notes = {text: sorted(paths) for text, paths in sorted(notes.items())}
    return {"inputs": inputs, "faults": dict(sorted(faults.items())), "notes": sorted_notes}


def settings_of(
    predictor: "Predictor", options: "OutputOptions", checkpoint: Path
) -> dict[str, Any]:
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


def check_settings(out: Path, settings: dict[str, Any], resume: bool, shard: Shard) -> None:
    """Check that outputs of earlier calls and of other shards were made with the same settings.

    With `resume`, and for other shards, the options of the outputs must be the same as well.

    Raises:
        ConfigError: other settings.
    """
    # Imported here because torch is slow to import.
    from hrseg.inference.outputs import OutputOptions

    for path, earlier in read_manifests(out).items():
        if "wanted" in earlier:  # options that an earlier version did not have
            earlier["wanted"] = {**OutputOptions().to_dict(), **earlier["wanted"]}
        other_shard = shard.count > 1 and path.name not in (MANIFEST, shard.manifest)
        keys = ("sha256", "model", "class_names", "precision", "protocol")
        for key in (*keys, *["wanted"] * (resume or other_shard)):
            if earlier.get(key) != settings[key]:
                name = "checkpoint" if key == "sha256" else key
                raise ConfigError(
                    f"{out} was made with {name} {earlier.get(name)}; "
                    f"this call has {settings[name]}.\n"
                    "Expected: the settings of the first call. Fix: --out OTHER_FOLDER"
                )
