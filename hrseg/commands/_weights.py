"""List, download, inspection and conversion of weights: the work of `hrseg weights`."""

import hashlib
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from rich import get_console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from hrseg.checkpoints.hub import describe_download, fetch, is_remote
from hrseg.checkpoints.integrity import state_of
from hrseg.checkpoints.loading import build_model, compare, load_weights
from hrseg.checkpoints.metadata import ModelMetadata, metadata_from_config, read_metadata
from hrseg.checkpoints.mmseg import RESTORE, to_mmseg
from hrseg.checkpoints.network_names import describe
from hrseg.checkpoints.origins import FAMILIES, MARK, Found, recognise
from hrseg.checkpoints.published import LICENCE, RELEASE_URL, RELEASES, STARTS, WORDS
from hrseg.checkpoints.reading import read_checkpoint, write_safetensors
from hrseg.config.protocols import Protocol
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.inference.exported_model import is_exported, open_engine
from hrseg.models.segmenter import network_name
from hrseg.training.factory import build_data
from hrseg.utils.console import echo
from hrseg.utils.files import cannot_write, replacing
from hrseg.utils.text import some

State = dict[str, Tensor]
Rows = list[tuple[str, str]]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # no parameters

# align_corners of the authors' released files by the start of the name. Source: the yaml files of
# branch HRNet-OCR, and seg_hrnet_ocr.py, which always aligns corners.
_RELEASED = {
    "hrnet_ocr": True,
    "hrnet_cs": False,
    "hrnet_lip": False,
    "hrnet_pascal_ctx": False,
    "hrnet_ade20k": True,
    "hrnet_cocostuff": True,
}


def inspect_weights(file: str, config: Config | None = None) -> None:
    """Print the family, network and metadata of a file, and how it fits the config's model."""
    path = fetch(file) if is_remote(file) else Path(file).expanduser()
    if is_exported(path):
        if config is not None:
            raise ConfigError(
                f"{path} is an exported file, which contains its metadata.\n"
                "Expected: no config. Fix: leave out --config."
            )
        engine = open_engine(path)
        kind = ("kind", f"exported: {engine.extra_repr()}")
        _show([*_identity(path), kind, *_metadata_rows(read_metadata(engine.metadata, path))])
        return
    raw, weights = _read(file, path)
    metadata = read_metadata(raw["hrseg"], path) if raw.get("hrseg") is not None else None
    unchecked = path.suffix == ".safetensors" or state_of(path) != "whole"
    integrity = "the file has no checksums" if unchecked else "the CRC32 of every record is correct"
    _show(
        [
            *_identity(path),
            ("integrity", integrity),
            ("kind", f"{FAMILIES[weights.family].title} file: {describe(weights.state)}"),
            *_tensor_rows(weights.state),
            ("align_corners", _align_corners(weights, raw, metadata, path)),
            *(_metadata_rows(metadata) if metadata else _mmseg_classes(raw.get("meta"))),
            *(("note", note) for note in weights.notes),
        ]
    )
    if config is not None:
        model = build_model(config, build_data(config))
        echo(str(compare(model, raw, origin=str(path))[1]))
        load_weights(model, raw, origin=path)
        print(f"every tensor fits: hrseg validate --config {config.name} --checkpoint {file}")


def list_weights() -> None:
    """Print the published weights: ImageNet weights and the authors' segmentation checkpoints."""
    starts = Table("model.weights", "backbone", "name", "MB", title="to start a training from")
    for start in STARTS:
        starts.add_row(start.word, start.backbone, start.repository, str(start.megabytes))
    releases = Table("name, config", "data set, protocol", "mIoU", "MB", title="trained")
    for row in RELEASES:
        releases.add_row(
            f"{row.name}\n--config {row.config}",
            f"{row.data}\n{row.protocol}",
            f"{row.miou:.1f}",
            str(row.megabytes),
        )
    console = get_console()
    for table in (starts, releases):
        table.title_justify = "left"
        console.print(table)
    for word, text in WORDS.items():
        print(f"{word}: {text}, on the Hugging Face Hub")
    print(
        f"trained: the authors' release at {RELEASE_URL}\n"
        f"licence of all: {LICENCE}. The authors publish no checksums; files of the Hub are "
        "compared with their sha256.\n"
        "`hrseg weights get NAME` downloads a file; "
        "`hrseg validate --config CONFIG --checkpoint hub:NAME` scores a trained one."
    )


def get_weights(name: str) -> Path:
    """Download the weights of a name in `list_weights`, or of the Hub; return the file."""
    if name in {release.name for release in RELEASES}:
        name = f"hub:{name}"
    if not is_remote(name) or name in WORDS:
        names = [start.repository for start in STARTS] + [release.name for release in RELEASES]
        near = get_close_matches(name, names, n=2)
        raise ConfigError(
            f"{name} is not the name of published weights.\n"
            "Expected: a name in `hrseg weights list`, timm/NAME or hf:USER/NAME."
            + (f"\nDid you mean: {' or '.join(near)}?" if near else "")
        )
    path = fetch(name)
    print(describe_download(name))
    _show(_identity(path))
    return path


def convert_weights(
    file: str, family: str, out: Path | None = None, config: Config | None = None
) -> Path:
    """Write the weights of a file under the names of a family; return the new file.

    With a config, an "hrseg" file gets the metadata that `hrseg.load` needs.
    """
    path = fetch(file) if is_remote(file) else Path(file).expanduser()
    if is_exported(path):
        raise ConfigError(
            f"{path} is an exported file.\n"
            "Expected: a checkpoint. Fix: convert the checkpoint of this export."
        )
    # "torch04" in the name of a file stands for |weight| + 1e-5 (the rule of torch 0.4), which
    # recognise() has applied already.
    stem = _without_torch04(path.stem) if family == "official" else path.stem
    out = out or path.with_name(f"{stem}_{family}.pth")
    _check_out(out, family)
    raw, weights = _read(file, path)
    if family != "hrseg" and f"backbone.{MARK}" not in weights.state:
        raise ConfigError(
            f"{path} contains a {describe(weights.state)}, for which {family} has no names.\n"
            "Expected: a whole HRNet. Fix: --to hrseg"
        )
    metadata = _metadata(raw, config, path) if family == "hrseg" else {}
    echo(*weights.notes)
    if family != "hrseg" and "hrseg" in raw:
        echo("The new file has no class names, colours, normalisation and protocol.")
    with replacing(out) as partial:
        try:
            _write(partial, family, weights.state, metadata)
        except RuntimeError as error:  # of torch.save
            raise cannot_write(out, str(error).partition("\n")[0]) from error
    return out


def _without_torch04(name: str) -> str:
    return re.sub("torch04", "torch11", name, flags=re.I)


def _read(file: str, path: Path) -> tuple[dict[str, Any], Found]:
    raw = read_checkpoint(path)
    return raw, recognise(raw, "timm" if is_remote(file) else "auto", str(path))


def _check_out(out: Path, family: str) -> None:
    if out.exists():
        raise ConfigError(
            f"{out} exists already. It was not overwritten.\n"
            "Expected: a new file. Fix: --out OTHER_FILE"
        )
    suffixes = (".pth",) if family == "mmseg" else (".pth", ".safetensors")
    if out.suffix not in suffixes:
        raise ConfigError(
            f"--out {out} has another suffix.\n"
            f"Expected: {' or '.join(suffixes)}. Fix: --out {out.with_suffix('.pth')}"
        )
    if family == "official" and "torch04" in out.name.lower():
        raise ConfigError(
            f"--out {out} has torch04 in its name, so that its norm weights would be read as "
            "|weight| + 1e-5.\nExpected: a name without torch04. "
            f"Fix: --out {out.with_name(_without_torch04(out.name))}"
        )


def _metadata(raw: Mapping[str, Any], config: Config | None, path: Path) -> dict[str, Any]:
    if config is not None:
        data = build_data(config)
        model = build_model(config, data)
        load_weights(model, raw, origin=path)
        return metadata_from_config(config, data, model.architecture)
    if "hrseg" not in raw:
        print("The new file has no classes, colours and protocol, because --config is missing.")
        return {}
    return read_metadata(raw["hrseg"], path).to_dict()


def _write(path: Path, family: str, state: State, metadata: dict[str, Any]) -> None:
    if family == "mmseg":
        renamed, originals = to_mmseg(state)
        torch.save({"meta": {}, "state_dict": renamed, RESTORE: originals}, path)
        return
    if family == "official":
        # The attributes of `backbone` and `head` have the authors' names.
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        write_safetensors(path, state, metadata)
    elif family == "official":
        torch.save(state, path)
    else:
        torch.save({"state_dict": state, **({"hrseg": metadata} if metadata else {})}, path)


def _identity(path: Path) -> Rows:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [("file", str(path)), ("size", f"{path.stat().st_size:,} bytes"), ("sha256", digest)]


def _tensor_rows(state: State) -> Rows:
    rows = []
    for part in ("backbone", "head"):
        names = [name for name in state if name.startswith(f"{part}.")]
        count = sum(state[name].numel() for name in names if not name.endswith(_STATISTICS))
        rows.append((part, f"{len(names)} tensors, {count / 1e6:.2f} M parameters"))
    if damaged := [name for name, tensor in state.items() if not tensor.float().isfinite().all()]:
        rows.append(("damaged", f"{len(damaged)} tensors contain NaN or infinity: {some(damaged)}"))
    return rows


def _align_corners(
    weights: Found, raw: Mapping[str, Any], metadata: ModelMetadata | None, path: Path
) -> str:
    if metadata:
        return f"{metadata.architecture.get('align_corners', False)}, by the file's metadata"
    if weights.family == "mmseg" and RESTORE not in raw:
        return "False, as in the configs of mmsegmentation"
    for start, aligned in _RELEASED.items():
        if path.name.startswith(start):
            return f"{aligned}, by the authors' configs for {start}* (the file has no such entry)"
    return "unknown: use the value of the training's config"


def _metadata_rows(metadata: ModelMetadata) -> Rows:
    rows = [
        ("network", network_name(metadata.architecture)),
        ("classes", ", ".join(metadata.class_names)),
        ("protocol", str(Protocol(**metadata.protocol))),
    ]
    if metadata.temperature:
        rows.append(("temperature", f"{metadata.temperature:.3f}"))
    return rows


def _mmseg_classes(meta: Any) -> Rows:
    """Return the class names in a file of mmsegmentation, of any version."""
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get("dataset_meta")
    names = data.get("classes") if isinstance(data, Mapping) else meta.get("CLASSES")
    return [("classes", some(names, 255))] if isinstance(names, list | tuple) else []


def _show(rows: Rows) -> None:
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        # Control characters of a file must not reach the terminal.
        table.add_row(name, Text("".join(c if c.isprintable() else "?" for c in text)))
    get_console().print(table, highlight=False)
