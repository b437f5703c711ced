"""README: its Python runs, its paths exist, and its number of configs is right."""

import re

from hrseg.config.loader import shipped_configs
from tests.camvid_tree import make_camvid
from tests.conftest import picture, save_image
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_of_the_readme_runs_and_has_ten_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_camvid(tmp_path / "camvid", train=2, val=1)
    save_image(tmp_path / "street.png", picture((40, 56)))
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    code = code.replace("/data/camvid", "camvid").replace("batch_size=8", "batch_size=2")
    code = code.replace("(256, 256)", "(48, 64)").replace("max_epochs=50", "max_epochs=1")
    names = {}
    exec(code, names)
    assert names["prediction"].mask.shape == (40, 56)


def test_every_path_in_the_readme_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    for name in ("scripts/demo", "scripts/test", "constraints.txt", *links):
        assert (ROOT / name).exists(), name


def test_the_readme_counts_the_configs_of_data_sets():
    own = {"folder", "synthetic_tiny"}
    assert f"{len({*shipped_configs()} - own)} configs cover" in README
