"""Report page: content, interaction, and escaping of names."""

import base64
import hashlib
import html
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from hrseg.evaluation.report import write_report
from hrseg.evaluation.results import ImageRecord, make_record
from hrseg.metrics.binary import binary_summary
from hrseg.metrics.calibration import calibration_summary
from hrseg.visualize import indexed
from tests.conftest import save_image
from tests.evaluations import PALETTE, write_evaluation

SCRIPT = "</script><script>alert(1)</script>"
IMG = "fog <img src=x onerror=alert(1)>"


def masks():
    """Return the true mask (columns: 20 sky, 20 road, 10 car) and the predictions."""
    truth = np.repeat([0, 1, 2], [20, 20, 10]).astype(np.uint8)[None].repeat(40, 0)
    fog = np.where(truth == 2, 1, truth).astype(np.uint8)
    dusk = truth.copy()
    dusk[:10, 40:] = 1
    dusk[:5, :20] = 2
    return truth, {"clear": truth, "dusk": dusk, IMG: fog}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three images with their data set; IoU: sky 95.83, road 82.76, car 53.85 %."""
    home = tmp_path_factory.mktemp("report")
    truth, preds = masks()
    run = home / "run"
    for name, pred in preds.items():
        for part in ("train", "val"):
            save_image(home / f"data/{part}/{name}.png", np.uint8(PALETTE)[truth])
            save_image(home / f"data/{part}annot/{name}.png", truth)
        (run / "masks").mkdir(parents=True, exist_ok=True)
        indexed(pred, PALETTE).save(run / "masks" / f"{name}.png")
    (run / "metrics.csv").write_text(
        "epoch,step,train/loss,train/lr,val/miou\n0,9,1.5,0.01,\n0,9,,,0.5\n1,19,nan,0.005,\n1,19,,,0.7\n"
    )
    records = [make_record(name, pred, truth) for name, pred in preds.items()]
    return write_evaluation(run, records, ["sky", "road", SCRIPT], home / "data")


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text(encoding="utf-8")


def content(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1]
    )


def test_the_content_security_policy_allows_only_the_blocks_of_the_page(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for tag in ("script", "style"):
        (block,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_scores_are_in_noscript_as_escaped_html(page):
    plain = re.search(r"<noscript>(.*?)</noscript>", page, re.DOTALL)[1]
    assert "mIoU 77.48 %" in plain
    assert f"<td>{html.escape(SCRIPT)}</td><td>53.85 %</td>" in plain
    assert SCRIPT not in page


def test_pictures_are_a_jpeg_and_palette_pngs(run, page):
    data = content(page)
    assert [row[0] for row in data["records"]] == ["clear", "dusk", IMG]
    panel = data["panels"]["2"]
    assert panel["image"].startswith("data:image/jpeg;base64,")
    decoded = {}
    for key in ("truth", "pred", "errors"):
        raw = base64.b64decode(panel[key].removeprefix("data:image/png;base64,"))
        (run / "panel.png").write_bytes(raw)
        with Image.open(run / "panel.png") as picture:
            assert picture.mode == "P"
            decoded[key] = np.asarray(picture.convert("RGB"))
    truth, preds = masks()
    assert (decoded["truth"] == np.uint8(PALETTE)[truth]).all()
    assert (decoded["pred"] == np.uint8(PALETTE)[preds[IMG]]).all()
    wrong = (decoded["errors"] == decoded["errors"][0, 45]).all(-1)
    assert (wrong == (truth != preds[IMG])).all()


def test_curves_keep_gaps_and_a_validation_has_those_of_its_run(run, page):
    expected = {
        "epoch": [0, 0, 1, 1],
        "step": [9, 9, 19, 19],
        "train/loss": [1.5, None, None, None],
        "train/lr": [0.01, None, 0.005, None],
        "val/miou": [None, 0.5, None, 0.7],
    }
    assert content(page)["metrics"] == expected
    folder = run / "validate/20261123-112022"
    write_evaluation(folder, [ImageRecord("a", (1, 2), ((0, 0, 2),))], ["x"])
    data = content(write_report(folder).read_text())
    assert data["metrics"] == expected
    assert data["date"] == "2026-11-23 11:20"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    if not (binary := next(filter(None, map(shutil.which, names)), None)):
        pytest.skip("no Chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser):
    """A tab of 1280x800; its page must cause no console message and no further request."""
    tab = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    errors, requests = [], []
    tab.on("console", lambda line: line.type in ("error", "warning") and errors.append(line.text))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: requests.append(request.url))
    yield tab
    assert errors == []
    assert {url for url in requests if not url.startswith("data:")} == {tab.url}
    tab.close()


@pytest.fixture
def shown(tab, run, page):
    tab.goto((run / "report.html").as_uri())
    return tab


def order(tab):
    """Return the names of the shown images, in order."""
    script = "articles => articles.map(article => article.dataset.name)"
    return tab.eval_on_selector_all("#image-list article", script)


def test_the_first_screen_contains_score_worst_classes_worst_image_and_errors(shown):
    head = shown.inner_text("#head")
    assert "77.48 %" in head and "mIoU over 3 classes" in head
    # Car: 500 of 1200 pixels are predicted as road; in fog all of them.
    assert "IoU 53.85 %" in head
    assert "41.67 % of its pixels are missed, mostly predicted as road (41.67 % of its" in head
    assert f"Worst: {IMG}, IoU 0.00 %" in head
    # Road: no pixel is missed, but 500 of the 2900 pixels predicted as road are car.
    assert "None of its pixels is missed." in head
    assert f"17.24 % of the pixels predicted as road are {SCRIPT}." in head
    box = shown.locator("#head").bounding_box()
    assert box["y"] + box["height"] <= 800


def test_names_are_not_parsed_as_markup(shown):
    assert SCRIPT in shown.inner_text("#bars")
    assert IMG in shown.inner_text("#images")
    assert shown.locator("img[src=x]").count() == 0


def test_a_selected_confusion_shows_its_images_and_pixels(shown):
    shown.click('#matrix [data-pair="2,1"]')
    rows = shown.locator("#pair-images li").all_inner_texts()
    assert [" ".join(row.split()) for row in rows] == [
        f"{IMG} 400 px 80.00 %",
        "dusk 100 px 20.00 %",
    ]
    assert order(shown)[0] == IMG
    # The last panel marks only these pixels: columns 40 to 49 of fog are missed car.
    shown.wait_for_function("document.querySelector('#image-list canvas').width === 50")
    marked = """canvas => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, 50, 40);
        return Array.from({ length: 2000 }, (_, i) => data[4 * i] === 245);
    }"""
    truth, preds = masks()
    pixels = np.array(shown.eval_on_selector("#image-list canvas", marked)).reshape(40, 50)
    assert (pixels == ((truth == 2) & (preds[IMG] == 1))).all()


def test_a_selected_class_filters_the_images_and_can_be_cleared(shown):
    shown.click("#bars li[data-id='2'] button")
    assert order(shown) == [IMG, "dusk", "clear"]
    second = shown.inner_text("#image-list article:nth-child(2)")
    assert f"IoU of {SCRIPT} 60.00 %" in second
    shown.click("[data-order=best]")
    assert order(shown) == ["clear", "dusk", IMG]
    shown.click("#chosen")
    assert shown.locator("#chosen").is_hidden()


def test_an_enlarged_image_shows_the_class_under_the_pointer(shown):
    shown.click("#image-list .panels")
    assert IMG in shown.inner_text("#large")
    assert shown.locator("#large img").count() == 4
    box = shown.locator("#large img[data-key=pred]").bounding_box()
    # Column 45 of 50 of fog is car, predicted as road.
    shown.mouse.move(box["x"] + 0.91 * box["width"], box["y"] + 0.5 * box["height"])
    shown.wait_for_selector("#tip", state="visible")
    assert shown.inner_text("#tip") == f"truth: {SCRIPT}\nprediction: road"
    shown.click("#large .pill:last-child")
    assert not shown.eval_on_selector("#large", "dialog => dialog.open")


def test_the_page_fits_the_width_of_a_phone(shown):
    shown.set_viewport_size({"width": 390, "height": 844})
    shown.click('#matrix [data-pair="2,1"]')
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_page_without_pictures_and_with_a_script_as_image_name_works(tab, tmp_path):
    records = [ImageRecord(SCRIPT, (1, 2), ((0, 0, 1), (0, 1, 1)))]
    write_evaluation(tmp_path, records, [SCRIPT, "y", "absent"])
    tab.goto(write_report(tmp_path).as_uri())
    assert "could not be shown" in tab.inner_text("#fault")
    assert SCRIPT in tab.inner_text("#image-list")
    assert "absent: no true or predicted pixels" in tab.inner_text("#bars")


def test_details_of_scores_json_are_shown(tab, tmp_path):
    records = [ImageRecord("a", (10, 10), ((0, 0, 60), (1, 0, 10), (1, 1, 30)))]
    rows = [
        {"name": name, "iou": 0.5, "f_score": 0.625, "errors_near": near, "errors_inside": 4,
         "share_of_errors": ratio, "share_of_pixels": 0.3}
        for name, near, ratio in (("x", 0, None), ("y", 6, 0.6))
    ]  # fmt: skip
    block = {"mean_iou": 0.5, "mean_f_score": 0.625, "share_of_errors": 0.6, "classes": rows}
    interval = [{"name": "x", "iou": [0.8, 0.9]}, {"name": "y", "iou": None}]
    details = {
        "boundary": {"3": block, "5": block},
        "bootstrap": {"level": 0.95, "miou": [0.75, 0.875], "classes": interval},
    }
    write_evaluation(tmp_path, records, ["x", "y"], details=details)
    tab.goto(write_report(tmp_path).as_uri())
    head = tab.inner_text("#head")
    assert "75.00 to 87.50 %" in head
    assert (
        "60.00 % of its missed pixels are within 5 px of a contour, compared with 30.00 % of all "
        "its pixels. The errors are mostly along outlines."
    ) in head
    assert tab.locator(".track u").count() == 1
    assert "62.50 %" in tab.text_content("#distribution table")


@pytest.fixture
def shown_binary(tab, tmp_path):
    """The report of a task of two classes with thresholds and calibration."""
    counts = torch.zeros(2, 20, dtype=torch.int64)
    counts[0, 5], counts[1, 5], counts[1, 12] = 30, 10, 60  # probabilities of 0.25 and 0.60
    bins = torch.zeros(3, 15, dtype=torch.int64)
    bins[:, 14] = torch.tensor([100, 80, 95 * 2**16])  # confidence 0.95, 80 % correct
    names, matrix = ["rest", SCRIPT], torch.tensor([[30, 0], [10, 60]])
    scores = {
        "binary": binary_summary(matrix, counts, names, None),
        "calibration": {**calibration_summary(bins), "temperature": 1.5},
    }
    record = ImageRecord("a", (10, 10), ((0, 0, 30), (1, 0, 10), (1, 1, 60)))
    folder = write_evaluation(tmp_path / "binary", [record], names, **scores)
    tab.goto(write_report(folder).as_uri())
    return tab


def test_thresholds_and_reliability_are_shown_and_names_stay_text(shown_binary):
    section = shown_binary.inner_text("#confidence")
    assert f"Threshold of {SCRIPT}" in section
    # At 0.30 and above 60 of 70 foreground pixels and no others: Dice 120 / 130.
    assert "Best Dice 92.31 % at threshold 0.3." in section
    assert "Expected calibration error 15.00 %, with temperature 1.500." in section
    rows = shown_binary.locator("#confidence tbody tr").all_inner_texts()
    assert rows[0].split("\t")[1:] == ["0.50", "100.00 %", "85.71 %", "92.31 %", "85.71 %"]
    assert shown_binary.locator("#confidence rect.reliability").count() == 1
    box = shown_binary.locator("#confidence rect.reliability").bounding_box()
    axis = shown_binary.locator("#confidence svg").nth(1).bounding_box()
    assert box["height"] / axis["height"] == pytest.approx(0.8 * (330 - 52) / 330, abs=0.01)


def test_a_report_without_confidence_has_no_section_for_it(shown):
    assert shown.locator("#confidence").count() == 0
