"""`hrseg weights`: what a file of weights is, and the same weights under other names."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich import get_console
from rich.table import Table
from torch import Tensor

from hrseg.atomic import replacing
from hrseg.engine import is_exported, open_engine
from hrseg.errors import ConfigError
from hrseg.facts import check_facts
from hrseg.models.families import FAMILIES, Found, recognise, some
from hrseg.models.hub import fetch, is_on_hub
from hrseg.models.mmseg import RESTORE, to_mmseg
from hrseg.models.weightfile import read_checkpoint, write_safetensors
from hrseg.models.weights import Report, compare, describe, load_weights
from hrseg.schema import Config

State = dict[str, Tensor]

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
        engine = open_engine(path)
        _show([("file", str(path)), ("is", f"exported: {engine.extra_repr()}"),
               *_said(engine.facts)])  # fmt: skip
        return
    raw = read_checkpoint(path)
    found = recognise(raw, "timm" if is_on_hub(file) else "auto", str(path))
    rows = [
        ("file", str(path)),
        ("is", f"{FAMILIES[found.family].title} file: {describe(found.state)}"),
        ("size", f"{path.stat().st_size:,} bytes"),
        ("sha256", _sha256(path)),
        *_tensors(found.state),
        ("align_corners", _align_corners(found, raw, path)),
        *_said(raw.get("hrseg")),
        *(("note", note) for note in found.notes),
        ("use", _use(found, isinstance(raw.get("hrseg"), Mapping))),
    ]
    _show(rows)
    if config is not None:
        from hrseg.build import build_model  # brings Lightning

        model, _ = build_model(config)
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
    out = out or path.with_name(f"{path.stem}_{family}.pth")
    if out.exists():
        raise ConfigError(f"{out} exists already. Remove it, or name another file with --out.")
    if out.suffix not in (".pth", ".safetensors") or (out.suffix, family) == (
        ".safetensors",
        "mmseg",
    ):
        expected = ".pth" if family == "mmseg" else ".pth or .safetensors"
        raise ConfigError(f"--out {out}: expected a file that ends with {expected}.")
    raw = read_checkpoint(path)
    found = recognise(raw, "timm" if is_on_hub(file) else "auto", str(path))
    facts = _facts(raw, config, path) if family == "hrseg" else {}
    for note in found.notes:
        get_console().print(note, highlight=False, soft_wrap=True)
    with replacing(out) as partial:
        _write(partial, family, found.state, facts)
    return out


def _facts(raw: Mapping[str, Any], config: Config | None, path: Path) -> dict[str, Any]:
    """Return what the new file says of itself: what the old one said, or what a config says."""
    if config is not None:
        from hrseg.build import build_model  # brings Lightning

        model, facts = build_model(config)
        load_weights(model, raw, origin=path)
        return facts
    if "hrseg" not in raw:
        print("note: without --config the file says nothing of classes, colours and protocol")
        return {}
    check_facts(raw["hrseg"], path)
    return dict(raw["hrseg"])


def _write(path: Path, family: str, state: State, facts: dict[str, Any]) -> None:
    if family == "mmseg":
        renamed, originals = to_mmseg(state)
        torch.save({"meta": {}, "state_dict": renamed, RESTORE: originals}, path)
        return
    if family == "official":
        # Attributes below `backbone` and `head` are named as the authors name them.
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        write_safetensors(path, state, facts)
    elif family == "official":
        torch.save(state, path)
    else:
        torch.save({"state_dict": state, **({"hrseg": facts} if facts else {})}, path)


def _tensors(state: State) -> list[tuple[str, str]]:
    rows = []
    for part in ("backbone", "head"):
        tensors = [tensor for name, tensor in state.items() if name.startswith(f"{part}.")]
        count = sum(tensor.numel() for tensor in tensors)
        rows.append((part, f"{len(tensors)} tensors, {count / 1e6:.2f} M numbers"))
    kinds = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    rows.append(("types", ", ".join(f"{count} {kind}" for kind, count in kinds.items())))
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        rows.append(("damaged", f"{len(broken)} tensors are not finite: {some(broken)}"))
    return rows


def _align_corners(found: Found, raw: Mapping[str, Any], path: Path) -> str:
    facts = raw.get("hrseg")
    if isinstance(facts, Mapping) and isinstance(facts.get("architecture"), Mapping):
        return f"{facts['architecture'].get('align_corners')}, the file says so"
    if found.family == "mmseg" and RESTORE not in raw:
        return "False, as in mmseg's own configs"
    for start, aligned in RELEASED.items():
        if path.name.startswith(start):
            return f"{aligned}, by the authors' configs for {start}* (the file does not say)"
    return "not in the file: take the config that it was trained with"


def _said(facts: Any) -> list[tuple[str, str]]:
    """Return what a file of hrseg says of itself."""
    if not isinstance(facts, Mapping):
        return []
    check_facts(facts, "the file")
    architecture, protocol = facts["architecture"], facts["protocol"]
    return [
        ("network", f"{architecture['backbone']} + {architecture.get('head', 'fcn')}"),
        ("classes", ", ".join(facts["class_names"])),
        ("protocol", f"{protocol['name']}: scales {protocol['scales']}, flip {protocol['flip']}"),
    ]


def _use(found: Found, complete: bool) -> str:
    if complete:
        return "hrseg predict, validate, export and hrseg.load take it as it is"
    if not any(name.startswith("head.") for name in found.state):
        return "to start a training from: model.weights=FILE"
    return "hrseg validate and predict --config NAME --checkpoint FILE; model.weights=FILE"


def _show(rows: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
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
        table.add_row(what, str(len(names)), some(names) if names else "-")
    get_console().print(table)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
