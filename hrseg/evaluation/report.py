"""HTML report of an evaluation as a single self-contained file."""

import base64
import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrseg.config.protocols import Protocol
from hrseg.errors import DataError, HrsegError
from hrseg.evaluation.analysis import write_details
from hrseg.evaluation.leakage import write_leakage
from hrseg.evaluation.results import Evaluation, open_evaluation
from hrseg.utils.console import echo, note
from hrseg.utils.constants import IGNORE_INDEX, __version__
from hrseg.utils.files import write_bytes
from hrseg.visualize import RIGHT_COLOR, VOID_COLOR, WRONG_COLOR, default_palette, indexed

PANEL_WIDTH = 480  # pixels of a picture in the page


def write_report(folder: str | Path, overrides: Sequence[str] = (), images: int = 60) -> Path:
    """Write `report.html` into the folder of an evaluation, and return its path.

    The page loads no other file. Without the data set it contains no pictures but the reason.

    Args:
        folder: as in `open_evaluation`.
        overrides: as in `open_evaluation`.
        images: maximum of images with pictures; the scores are those of all images.

    Raises:
        ConfigError: the folder has no evaluation, or the disk is full.
    """
    evaluation = open_evaluation(folder, overrides)
    panels, errors = draw_panels(evaluation, choose_images(evaluation, images))
    protocol = evaluation.scores.get("protocol")
    count = f"{len(errors)} image{'s' * (len(errors) > 1)}"
    data = {
        "name": evaluation.config.name,
        "folder": str(evaluation.folder),
        "date": _date(evaluation.folder),
        "protocol": str(Protocol(**protocol)) if protocol else "",
        "scores": evaluation.scores,
        "palette": _colors(evaluation),
        "records": [
            [record.name, *record.size, [number for row in record.counts for number in row]]
            for record in evaluation.records
        ],
        "panels": panels,
        "embedded": len(panels),
        "fault": f"{count} could not be shown. {errors[0]}" if errors else None,
        "metrics": _metrics(evaluation.folder),
        "config": (evaluation.folder / "config.yaml").read_text(encoding="utf-8"),
        "versions": f"report by hrseg {__version__}, torch {version('torch')}",
    }
    path = evaluation.folder / "report.html"
    # Lone surrogates, from names that are not UTF-8, are written as JSON escapes.
    write_bytes(path, _page(data).encode("utf-8", "backslashreplace"))
    return path


def report_run(folder: Path, details: bool) -> None:
    """Write the report of a finished evaluation, with `details` after its analysis.

    A folder without images.json gets no report. Errors are printed as notes.
    """
    if not (folder / "images.json").is_file():
        return
    try:
        if details:
            write_details(open_evaluation(folder))
        write_leakage(open_evaluation(folder))
        echo(f"report: {write_report(folder)}")
    except HrsegError as error:
        note(f"no report: {error}")


def choose_images(evaluation: Evaluation, limit: int) -> list[int]:
    """Return the indices of at most `limit` images to show, the most informative first.

    1. The image with the lowest mIoU.
    2. The worst image of every class, the worst class first.
    3. The image with the most pixels of each of the 30 largest confusions.
    4. The second worst image of every class, then the best.
    5. The other images by increasing mIoU.
    """
    correct, truth, pred = np.moveaxis(evaluation.matrices(), -1, 0)
    union = truth + pred - correct
    iou = np.divide(correct, union, out=np.full(correct.shape, np.nan), where=union > 0)
    scored = [index for index, row in enumerate(union) if row.any()]
    by_miou = sorted(scored, key=lambda index: float(np.nanmean(iou[index])))
    scores = [row["iou"] for row in evaluation.scores["classes"]]
    classes = sorted((k for k, s in enumerate(scores) if s is not None), key=scores.__getitem__)
    ranked = [_from_worst(iou[:, k], union[:, k]) for k in classes if union[:, k].any()]
    first, second = [rank[0] for rank in ranked], [rank[1] for rank in ranked if rank[1:]]
    best = [rank[-1] for rank in ranked]
    confused = _confusion_images(evaluation, 30)
    order = by_miou[:1] + first + confused + second + best + by_miou
    return list(dict.fromkeys(order))[: max(0, limit)]


def draw_panels(
    evaluation: Evaluation, indices: Sequence[int]
) -> tuple[dict[int, dict[str, str]], list[HrsegError]]:
    """Return the pictures of images as data URIs, by index, and the errors of the others."""
    panels, errors = {}, []
    for index in indices:
        try:
            panels[index] = _panel(evaluation, evaluation.records[index].name)
        except HrsegError as error:
            errors.append(error)
    return panels, errors


def script_json(data: Any) -> str:
    """Return JSON that is safe inside <script>: it cannot end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _page(data: Mapping[str, Any]) -> str:
    """Return the page for `data`, with a policy that forbids other scripts and any loading."""
    template = files("hrseg.evaluation").joinpath("page.html").read_text(encoding="utf-8")
    name, scores = escape(str(data["name"])), data["scores"]
    leakage = str((scores.get("leakage") or {}).get("message", ""))
    title = f"{name}: mIoU {_percent(scores['miou'])}"
    rows = "".join(
        f"<tr><td>{escape(row['name'])}</td><td>{_percent(row['iou'])}</td>"
        f"<td>{_percent(row['accuracy'])}</td><td>{row['pixels']:,}</td></tr>"
        for row in scores["classes"]
    )
    parts = {
        "csp": "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(template, 'style')}'; script-src '{_hash(template, 'script')}'",
        "title": title,
        "noscript": f"<h1>{title}</h1><p>{escape(leakage)}</p>"
        f"<p>Pixel accuracy {_percent(scores['pixel_accuracy'])}. "
        "Pictures and confusions need JavaScript.</p><table><tr><th>class</th><th>IoU</th>"
        f"<th>accuracy</th><th>true pixels</th></tr>{rows}</table>",
        "data": script_json(data),
    }
    # Substituted in one pass, so that placeholders inside values are not replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _hash(template: str, tag: str) -> str:
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
    digest = hashlib.sha256(blocks[0].encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _metrics(folder: Path) -> dict[str, list[float | None]] | None:
    """Return the columns of the metrics.csv of this folder or of its run."""
    run = folder.parents[1] if folder.parent.name == "validate" else folder
    path = next((f / "metrics.csv" for f in (folder, run) if (f / "metrics.csv").is_file()), None)
    if path is None:
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        rows = list(csv.DictReader(text.splitlines()))
    except csv.Error:  # a cell of megabytes
        return None
    names = [name for name in (rows[0] if rows else ()) if name]
    return {name: [_finite(row.get(name)) for row in rows] for name in names}


def _finite(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(folder: Path) -> str:
    """Return the date in the folder's name, or else the date of scores.json."""
    try:
        moment = datetime.strptime(folder.name[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        moment = datetime.fromtimestamp((folder / "scores.json").stat().st_mtime)
    return f"{moment:%Y-%m-%d %H:%M}"


def _percent(ratio: float | None) -> str:
    return "none" if ratio is None else f"{100 * ratio:.2f} %"


def _colors(evaluation: Evaluation) -> list[list[int]]:
    """Return the colours of the masks, or distinct colours without masks."""
    try:
        return evaluation.palette
    except DataError:
        return [list(color) for color in default_palette(len(evaluation.class_names))]


def _from_worst(iou: NDArray[np.float64], union: NDArray[np.int64]) -> list[int]:
    """Return the indices of images by increasing IoU of a class, IoU and union both (N,).

    Images with a union below the median are left out, because their IoU is mostly chance.
    """
    enough = np.flatnonzero(union >= max(1, np.median(union[union > 0])))
    return sorted(enough.tolist(), key=lambda i: (float(iou[i]), -int(union[i])))


def _confusion_images(evaluation: Evaluation, count: int) -> list[int]:
    """Return the image with the most pixels of each of the `count` largest confusions."""
    images: dict[tuple[int, int], tuple[int, int]] = {}
    for index, record in enumerate(evaluation.records):
        for truth, pred, pixels in record.counts:
            if truth != pred and pixels > images.get((truth, pred), (0, 0))[0]:
                images[truth, pred] = (pixels, index)
    matrix = evaluation.scores["confusion_matrix"]
    largest = sorted(images, key=lambda pair: -matrix[pair[0]][pair[1]])[:count]
    return [images[pair][1] for pair in largest]


def _panel(evaluation: Evaluation, name: str) -> dict[str, str]:
    """Return the pictures of an image as data URIs, by kind."""
    truth, pred = evaluation.truth(name), evaluation.pred(name)
    if truth.shape != pred.shape:
        raise DataError(
            f"{evaluation.mask_path(name)} has {pred.shape[1]}x{pred.shape[0]} pixels, its true "
            f"mask {truth.shape[1]}x{truth.shape[0]} (width x height).\n"
            "Expected: the data set of the evaluation, unchanged. Fix: hrseg validate"
        )
    photo = Image.fromarray(evaluation.image(name))
    photo.thumbnail((PANEL_WIDTH, 4 * PANEL_WIDTH))
    errors = np.where(truth == IGNORE_INDEX, 2, truth != pred).astype(np.uint8)
    colors = _colors(evaluation)
    pictures = {"image": _uri(photo, "JPEG", quality=80)}
    for key, mask, palette in (
        ("truth", truth, colors),
        ("pred", pred, colors),
        ("errors", errors, (RIGHT_COLOR, WRONG_COLOR, VOID_COLOR)),
    ):
        small = indexed(mask, palette).resize(photo.size, Image.Resampling.NEAREST)
        pictures[key] = _uri(small, "PNG")
    return pictures


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
