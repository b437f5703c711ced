"""Inspection and conversion of files of weights: the work of `hrseg weights`."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich import get_console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from hrseg.checkpoints.hub import fetch, is_on_hub
from hrseg.checkpoints.integrity import state_of
from hrseg.checkpoints.loading import Report, build_model, compare, describe, load_weights
from hrseg.checkpoints.metadata import ModelMetadata, metadata_from_config, read_metadata
from hrseg.checkpoints.mmseg import RESTORE, to_mmseg
from hrseg.checkpoints.origins import FAMILIES, MARK, Found, recognise
from hrseg.checkpoints.reading import read_checkpoint, write_safetensors
from hrseg.config.protocols import Protocol
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.inference.exported_model import is_exported, open_engine
from hrseg.models.segmenter import network_name
from hrseg.training.factory import build_data
from hrseg.utils.files import cannot_write, replacing
from hrseg.utils.text import some

State = dict[str, Tensor]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # no parameters

# The authors' yaml files, branch HRNet-OCR; seg_hrnet_ocr.py aligns corners whatever they say.
RELEASED = {
    "hrnet_ocr": True,
    "hrnet_cs": False,
    "hrnet_lip": False,
    "hrnet_pascal_ctx": False,
    "hrnet_ade20k": True,
    "hrnet_cocostuff": True,
}


def inspect_weights(file: str, config: Config | None = None) -> None:
    """Print what a file is; with a config, what of it the config's model would take.

    Raises:
        ConfigError: unreadable, of no known family, or it does not fit the config's model.
    """
    path = fetch(file) if is_on_hub(file) else Path(file).expanduser()
    if is_exported(path):
        if config is not None:
            raise ConfigError(f"{path} has metadata of its own: leave --config out.")
        engine = open_engine(path)
        kind = ("is", f"exported: {engine.extra_repr()}")
        _show([*_identity(path), kind, *_metadata_rows(read_metadata(engine.metadata, path))])
        return
    raw = read_checkpoint(path)
    found = recognise(raw, "timm" if is_on_hub(file) else "auto", str(path))
    metadata = read_metadata(raw["hrseg"], path) if raw.get("hrseg") is not None else None
    rows = [
        *_identity(path),
        ("integrity", _integrity(path)),
        ("is", f"{FAMILIES[found.family].title} file: {describe(found.state)}"),
        *_tensors(found.state),
        ("align_corners", _align_corners(found, raw, metadata, path)),
        *(_metadata_rows(metadata) if metadata else []),
        *_mmseg_classes(raw.get("meta")),
        *(("note", note) for note in found.notes),
        ("use", _use(found, metadata is not None)),
    ]
    _show(rows)
    if config is not None:
        model = build_model(config, build_data(config))
        _show_report(compare(model, raw, origin=str(path))[1])
        load_weights(model, raw, origin=path)
        print(f"every tensor fits: hrseg validate --config {config.name} --checkpoint {file}")


def convert_weights(
    file: str, family: str, out: Path | None = None, config: Config | None = None
) -> Path:
    """Write the weights of a file under the names of a family.

    Args:
        file: weights of any family.
        family: "official", "mmseg" or "hrseg".
        out: .pth, or .safetensors for the first and the last; default: beside `file`.
        config: for "hrseg", what the weights are, so that `hrseg.load` takes the result.

    Returns:
        The file that was written.

    Raises:
        ConfigError: unreadable, of no known family, a file there already, or weights that are not
            those of the config.
    """
    path = fetch(file) if is_on_hub(file) else Path(file).expanduser()
    if is_exported(path):
        raise ConfigError(f"{path} is exported: convert the checkpoint that it was made of.")
    out = out or _beside(path, family)
    _check_out(out, family)
    raw = read_checkpoint(path)
    found = recognise(raw, "timm" if is_on_hub(file) else "auto", str(path))
    if family != "hrseg" and f"backbone.{MARK}" not in found.state:
        raise ConfigError(f"{path} holds a {describe(found.state)}: {family} has no names for it.")
    metadata = _metadata(raw, config, path) if family == "hrseg" else {}
    dropped = family != "hrseg" and "hrseg" in raw
    left_out = ["class names, colours, normalisation and protocol left out"] if dropped else []
    for note in (*found.notes, *left_out):
        get_console().print(note, highlight=False, markup=False, soft_wrap=True)
    with replacing(out) as partial:
        try:
            _write(partial, family, found.state, metadata)
        except RuntimeError as error:  # of torch.save
            raise cannot_write(out, str(error).partition("\n")[0]) from error
    return out


def _beside(path: Path, family: str) -> Path:
    """Return where the result goes by default, next to the file that it is made of."""
    stem = path.stem
    if family == "official":
        # The rule of torch 0.4 is carried out by now: the old name would ask for it again.
        stem = re.sub("torch04", "torch11", stem, flags=re.IGNORECASE)
    return path.with_name(f"{stem}_{family}.pth")


def _check_out(out: Path, family: str) -> None:
    if out.exists():
        raise ConfigError(f"{out} exists already. Remove it, or name another file with --out.")
    suffixes = (".pth",) if family == "mmseg" else (".pth", ".safetensors")
    if out.suffix not in suffixes:
        raise ConfigError(f"--out {out}: expected a file that ends with {' or '.join(suffixes)}.")
    if family == "official" and "torch04" in out.name.lower():
        raise ConfigError(
            f"--out {out}: a file of this name has its norm weights read as |weight| + 1e-5, and\n"
            "those that are written are to be taken as they are. Name it without torch04."
        )


def _metadata(raw: Mapping[str, Any], config: Config | None, path: Path) -> dict[str, Any]:
    """Return the metadata of the new file: that of a config, or of the old file."""
    if config is not None:
        data = build_data(config)
        model = build_model(config, data)
        load_weights(model, raw, origin=path)
        return metadata_from_config(config, data, model.architecture)
    if "hrseg" not in raw:
        print("without --config the file has no metadata: classes, colours and protocol")
        return {}
    return read_metadata(raw["hrseg"], path).to_dict()


def _write(path: Path, family: str, state: State, metadata: dict[str, Any]) -> None:
    if family == "mmseg":
        renamed, originals = to_mmseg(state)
        torch.save({"meta": {}, "state_dict": renamed, RESTORE: originals}, path)
        return
    if family == "official":
        # Attributes below `backbone` and `head` are named as the authors name them.
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        write_safetensors(path, state, metadata)
    elif family == "official":
        torch.save(state, path)
    else:
        torch.save({"state_dict": state, **({"hrseg": metadata} if metadata else {})}, path)


def _tensors(state: State) -> list[tuple[str, str]]:
    rows = []
    for part in ("backbone", "head"):
        names = [name for name in state if name.startswith(f"{part}.")]
        count = sum(state[name].numel() for name in names if not name.endswith(STATISTICS))
        rows.append((part, f"{len(names)} tensors, {count / 1e6:.2f} M parameters"))
    kinds = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    rows.append(("types", ", ".join(f"{count} {kind}" for kind, count in kinds.items())))
    broken = [name for name, tensor in state.items() if not tensor.float().isfinite().all()]
    if broken:
        rows.append(("damaged", f"{len(broken)} tensors are not finite: {some(broken)}"))
    return rows


def _integrity(path: Path) -> str:
    if path.suffix == ".safetensors" or state_of(path) != "whole":
        return "the file has no checksums"
    return "the CRC32 of every record is right"


def _align_corners(
    found: Found, raw: Mapping[str, Any], metadata: ModelMetadata | None, path: Path
) -> str:
    if metadata:
        return f"{metadata.architecture.get('align_corners', False)}, by the file's metadata"
    if found.family == "mmseg" and RESTORE not in raw:
        return "False, as in mmseg's own configs"
    for start, aligned in RELEASED.items():
        if path.name.startswith(start):
            return f"{aligned}, by the authors' configs for {start}* (the file does not say)"
    return "not in the file: take the config that it was trained with"


def _metadata_rows(metadata: ModelMetadata) -> list[tuple[str, str]]:
    return [
        ("network", network_name(metadata.architecture)),
        ("classes", ", ".join(metadata.class_names)),
        ("protocol", str(Protocol(**metadata.protocol))),
    ]


def _mmseg_classes(meta: Any) -> list[tuple[str, str]]:
    """Return the class names that mmseg keeps beside its weights: before version 1, and since."""
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get("dataset_meta")
    names = data.get("classes") if isinstance(data, Mapping) else meta.get("CLASSES")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return []
    return [("classes", some(names, 255))]


def _use(found: Found, complete: bool) -> str:
    if complete:
        return "hrseg predict, validate, export and hrseg.load take it as it is"
    if not any(name.startswith("head.") for name in found.state):
        return "to start a training from: model.weights=FILE"
    return "hrseg validate and predict --config NAME --checkpoint FILE; model.weights=FILE"


def _show(rows: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for what, text in rows:
        # A file can say anything, also what would steer the terminal.
        table.add_row(what, Text("".join(c if c.isprintable() else "?" for c in text)))
    get_console().print(table, highlight=False)


def _show_report(report: Report) -> None:
    """Print what of a file a model would take, a row for each kind."""
    table = Table("tensors", "", "first of them")
    for what, names in (
        ("matched", report.matched),
        ("missing", report.missing),
        ("unexpected", report.unexpected),
        ("other shape", report.mismatched),
    ):
        table.add_row(what, str(len(names)), Text(some(names) if names else "-"))
    get_console().print(table)


def _identity(path: Path) -> list[tuple[str, str]]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = f"{path.stat().st_size:,} bytes"
    return [("file", str(path)), ("size", size), ("sha256", digest)]
