"""Tables and resume of scripts/benchmarks/paper_claims.py, with hand-made runs."""

import json

import pytest

from hrseg.errors import HrsegError
from tests.camvid_tree import make_camvid
from tests.paths import ROOT

BENCHMARKS = ROOT / "scripts" / "benchmarks"
SCRIPT = BENCHMARKS / "paper_claims.py"


@pytest.fixture
def claims(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import paper_claims

    return paper_claims


def run(variant, seed, miou, boundary=0.1, thin=(0.0, 0.0, 0.0), seconds=300.0, budget=500):
    names = ("Pole", "SignSymbol", "Pedestrian")
    return {
        "variant": variant, "seed": seed, "budget": budget, "steps": budget, "seconds": seconds,
        "precision": "32", "miou": miou, "boundary_iou": boundary,
        "classes": {name: {"iou": iou} for name, iou in zip(names, thin, strict=True)},
        "parameters": 3_940_000, "macs": 2_390_000_000,
    }  # fmt: skip


def cells(text, start):
    """Return the cells of the line of a table whose first cell starts with a text."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line]
    return next(line for line in lines if line[0].startswith(start))


def test_the_table_has_means_and_ranges_of_the_seeds(claims):
    text = claims.markdown([
        run("default", 304, 0.402, 0.20, (0.05, 0.10, 0.15), seconds=300),
        run("default", 1, 0.418, 0.21, (0.07, 0.10, 0.25), seconds=310),
        run("final", 304, 0.4, 0.20, (None, 0.0, 0.0)),
    ])  # fmt: skip
    assert cells(text, "exchange all, output v2") == [
        "exchange all, output v2", "2", "500", "3.94", "2.39", "305 (300 to 310)",
        "41.0 (40.2 to 41.8)", "20.5 (20.0 to 21.0)",
        "6.0 (5.0 to 7.0)", "10.0", "20.0 (15.0 to 25.0)",
    ]  # fmt: skip
    # One seed, and a class without a pixel in truth and prediction.
    assert cells(text, "exchange final") == [
        "exchange final", "1", "500", "3.94", "2.39", "300", "40.0", "20.0", "0.0", "0.0", "0.0",
    ]  # fmt: skip
    assert "output v1" not in text.partition("| claim")[0]


def test_a_claim_is_decided_only_if_no_seed_of_one_side_reaches_the_other(claims):
    text = claims.markdown([
        run("default", 304, 0.42, 0.10, (0.1, 0.2, 0.3)),
        run("default", 1, 0.40, 0.12, (0.1, 0.2, 0.3)),
        run("v1", 304, 0.39, 0.13, (0.1, 0.2, 0.0)),
        run("v1", 1, 0.37, 0.15, (0.1, 0.2, 0.6)),
        run("stages", 304, 0.3),
    ])  # fmt: skip
    # mIoU 41 - 38; boundary IoU 11 - 14; thin classes 20 - (10 + 30) / 2.
    assert cells(text, "All four streams (v2) are better than the finest")[1:] == [
        "+3.0, supported", "-3.0, contradicted", "+0.0, undecided",
    ]  # fmt: skip
    assert cells(text, "Fusion in all modules is better than fusion between")[1:] == (
        ["needs two seeds per side"] * 3
    )


def test_each_claim_compares_variants_that_are_trained(claims):
    import claims_table

    used = {key for _, *pair in claims_table.CLAIMS for key in pair}
    assert used == set(claims_table.VARIANTS)


def arguments_of(path, *words):
    return ["--root", "camvid", "--json", str(path), "--steps", "500", *words]


@pytest.fixture
def trained(claims, monkeypatch):
    """The (variant, seed) of each run that the script would train."""
    calls = []

    def train(root, variant, seed, budget, precision):
        calls.append((variant, seed))
        return run(variant, seed, 0.4, budget=budget)

    monkeypatch.setattr(claims, "train", train)
    return calls


def test_a_stored_run_is_not_repeated_and_the_seeds_come_one_after_the_other(
    claims, trained, tmp_path
):
    path = tmp_path / "results.json"
    stored = [run("v1", 304, 0.3), run("default", 304, 0.3, budget=400)]
    path.write_text(json.dumps(stored))
    words = arguments_of(path, "--only", "default", "v1", "--seeds", "304", "1")
    claims.main(words)
    assert trained == [("default", 304), ("default", 1), ("v1", 1)]
    assert json.loads(path.read_text())[:2] == stored and len(json.loads(path.read_text())) == 5
    claims.main(words)
    assert len(trained) == 3


def test_no_run_starts_that_would_end_after_the_limit(claims, trained, tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([run("default", 304, 0.3, seconds=300)]))
    claims.main(arguments_of(path, "--limit", "4.9"))
    assert trained == [] and "stopped before seed 304, final" in capsys.readouterr().out
    claims.main(arguments_of(path, "--limit", "5.1", "--only", "final", "--seeds", "304"))
    assert trained == [("final", 304)]


@pytest.mark.slow
def test_the_script_trains_and_evaluates_a_variant_with_hrseg_fit(claims, tmp_path, capsys):
    camvid = make_camvid(tmp_path / "camvid")
    words = ["--root", camvid, "--json", tmp_path / "r.json", "--steps", 2, "--seeds", 1]
    claims.main([*map(str, words), "--only", "v1"])
    (result,) = json.loads((tmp_path / "r.json").read_text())
    assert (result["variant"], result["seed"], result["steps"]) == ("v1", 1, 2)
    assert 0 <= result["boundary_iou"] <= 1 and len(result["classes"]) == 11
    assert cells(capsys.readouterr().out, "output v1")[1:3] == ["1", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--root", "missing", "--only", "default"], "missing does not exist"),
        (["--only", "default"], "--root CAMVID is missing"),
        (["--table", "--steps", "1"], "--steps 1: expected at least 2"),
        (["--table", "--json", __file__], "contains no runs of this script"),
        (["--table", "--json", str(ROOT / "configs/schema.json")], "contains no runs"),
        (["--root", "camvid", "--json", str(ROOT)], "is a folder"),
    ],
)
def test_wrong_input_is_an_error(words, message, claims, tmp_path, capsys):
    with pytest.raises((HrsegError, SystemExit)) as error:
        claims.main(["--json", str(tmp_path / "r.json"), *words])
    assert message in str(error.value) + capsys.readouterr().err
