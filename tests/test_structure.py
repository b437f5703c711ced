"""Who may import whom: the plan of the house, kept true."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "hrseg"
LEAVES = {
    "models",
    "losses",
    "data",
    "metrics",
    "inference",
    "visualize",
    "config",
    "protocols",
    "geometry",
    "scale_report",
    "boundary",
    "schema",
    "optim",
}
ANYONE = {"errors", "lookup", "atomic", "seal", "hrseg"}
EVALUATION = {"inference", "geometry", "logits", "protocols"}
MAY_IMPORT = {
    "allocator": set(),
    "console": {"stop"},
    "bars": set(),
    "lookup": set(),
    "errors": set(),
    "atomic": set(),
    "seal": {"models"},
    "pixels": set(),
    "parallel": set(),
    "polygons": set(),
    "inputs": {"pixels"},
    "video": {"parallel", "predictor"},
    "tiles": EVALUATION,
    "bigimage": {"pixels", "predictor", "tiles", "visualize"},
    "outputs": {"inputs", "polygons", "predictor", "visualize"},
    "predict": {"bars", "bigimage", "build", "engine", "inputs", "memory", "outputs", "parallel",
                "pixels", "predictor", "schema", "stop", "tiles", "video", "visualize"},
    "inference": {"geometry", "logits", "memory", "protocols", "rows"},
    "logits": {"protocols"},
    "rows": {"geometry"},
    "geometry": {"protocols"},
    "memory": set(),
    "skipped": {"data"},
    "numerics": set(),
    "task": {"numerics", "engine", "facts", "models", "losses", "optim", "metrics", "scale_report",
             "skipped", "visualize", *EVALUATION},
    "callbacks": {"metrics", "protocols", "visualize"},
    "submission": set(),
    "config": {"protocols", "schema"},
    "engine": {"facts", "graphs", "memory", "models", "protocols"},
    "graphs": set(),
    "facts": {"models", "protocols"},
    "formats": {"engine", "models"},
    "proof": {"engine", "metrics", "predictor", "protocols"},
    "export": {"build", "data", "facts", "formats", "models", "predictor", "proof", "schema"},
    "weights": {"build", "engine", "facts", "models", "protocols", "schema"},
    "predictor": {"engine", "facts", "memory", "models", "pixels", "visualize", "runfolder",
                  *EVALUATION},
    "logs": {"runfolder", "schema"},
    "devices": set(),
    "launch": {"runfolder"},
    "forecast": {"models"},
    "announce": {"config", "data", "forecast", "models", "schema", "task"},
    "progress": set(),
    "checkpointing": {"models", "runfolder"},
    "runfolder": set(),
    "startup": set(),
    "stop": set(),
    "interruption": {"runfolder", "stop"},
    "resume": set(),
    "state": {"memory"},
    "doctor": {"machine"},
    "machine": {"devices"},
    "arguments": set(),
    "choice": {"config", "runfolder", "schema"},
    "build": {"checkpointing", "config", "data", "engine", "facts", "launch", "logs", "models",
              "predictor", "protocols", "schema", "task", "visualize"},
    "checks": {"config", "facts", "models", "numerics", "resume", "runfolder", "schema", "state",
               "task"},
    "run": {"announce", "build", "callbacks", "checkpointing", "checks", "config", "data",
            "details", "devices", "engine", "interruption", "launch", "logs", "memory", "models",
            "progress", "records", "report", "resume", "runfolder", "schema", "state", "stop",
            "submission", "task"},
    "measure": {"allocator", "devices", "memory", "launch", "logs", "schema"},
    "benchmark": {"announce", "build", "callbacks", "devices", "logs", "measure", "memory",
                  "models", "schema"},
    "benchmark_data": {"announce", "benchmark", "build", "callbacks", "data", "devices", "logs",
                       "measure", "schema"},
    "benchmark_evaluation": {"announce", "benchmark", "build", "callbacks", "config", "data",
                             "engine", "logs", "measure", "models", "protocols", "schema", "task"},
    "datacheck": {"bars", "build", "callbacks", "data", "devices", "schema"},
    "datacache": {"bars", "build", "data", "devices", "schema"},
    "report": {"panels", "records"},
    "panels": {"records", "visualize"},
    "records": {"build", "callbacks", "config", "data", "metrics", "schema", "stored",
                "visualize"},
    "stored": {"protocols"},
    "details": {"boundary", "callbacks", "records"},
    "explore": {"metrics", "predictor", "records", "visualize"},
    "score": {"build", "callbacks", "config", "data", "metrics", "protocols", "schema"},
}  # fmt: skip


def part(module):
    """hrseg.data.masks -> data; hrseg -> hrseg."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "hrseg"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            if node.module == "hrseg":
                yield from (f"hrseg.{name.name}" for name in node.names if name.name[0] != "_")
            elif (node.module or "").startswith("hrseg."):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("hrseg"))


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_import_is_an_arrow_of_the_plan(path):
    me = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    if me in ("cli", "subcommands", "__init__", "__main__"):
        return
    for module in imports(path):
        other = part(module)
        allowed = ANYONE | {me} | MAY_IMPORT.get(me, set())
        assert me in LEAVES or me in MAY_IMPORT, f"{me} is in no plan: say what it may import"
        assert other in allowed, f"{me} imports {other}"


def test_every_module_has_a_test_file_of_its_own():
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    modules = {path.stem for path in HOUSE.rglob("*.py")} - {"__init__", "__main__"}
    # Rows of settings and drawing steps, proven by the tests of what uses them.
    modules -= {
        "schema",
        "canvas",
        "figures",
        "scene",
        "run",
        "build",
        "cross_entropy",
        "ohem",
        "normalize",
        "blocks",
        "formats",
    }
    assert modules <= tests, modules - tests


def test_only_the_transforms_import_albumentations():
    users = [
        path.name for path in HOUSE.rglob("*.py") if "import albumentations" in path.read_text()
    ]
    assert users == ["transforms.py"]
