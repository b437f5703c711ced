"""The site builds without a warning: links, anchors, navigation, generated references."""

import json
import subprocess
import sys

import pytest

from tests.paths import ROOT

pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site; --strict makes each warning an error."""
    folder = tmp_path_factory.mktemp("site")
    words = ["build", "--strict", "--config-file", "docs/mkdocs.yml", "--site-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def page(site, name):
    return (site / name / "index.html").read_text(encoding="utf-8")


def test_the_references_are_generated(site):
    commands = page(site, "reference/command-line")
    assert 'id="hrseg-weights-convert"' in commands and "--head-resolution" in commands
    config = page(site, "reference/config")
    for key in ("data.batch_size", "model.weights", "optimizer-adamw-optimizer.lr", "seed"):
        assert f'id="{key}"' in config, key
    assert 'id="cityscapes_w48_ocr"' in page(site, "reference/configs")
    assert "official_pascal_context" in page(site, "reference/protocols")
    api = page(site, "reference/python-api")
    for name in ("hrseg.create_model", "hrseg.load_weights", "hrseg.data.from_datasets"):
        assert name in api, name


def test_no_page_loads_anything_from_the_network(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for attribute in ('src="http', 'rel="stylesheet" href="http', 'href="https://fonts'):
            assert attribute not in text, f"{path}: {attribute}"


def test_the_search_index_has_the_pages(site):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    sections = {entry["location"] for entry in index["docs"]}
    assert {"troubleshooting/#training", "reference/config/#data"} <= sections
