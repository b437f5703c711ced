"""The layer table: a room imports rooms of lower layers only."""

import ast

import pytest

from tests.paths import ROOT

LAYERS = [
    {"errors", "utils"},
    {"config", "models", "losses", "metrics", "data", "visualize"},
    {"checkpoints"},
    {"inference"},
    {"training"},
    {"evaluation", "export", "benchmark"},
    {"cli", "commands"},
]
EXCEPTIONS = {("utils", "errors"), ("cli", "commands"), ("__main__", "cli")}
LAYER = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted((ROOT / "hrseg").rglob("*.py"))


def room(path):
    return path.relative_to(ROOT / "hrseg").parts[0].removesuffix(".py")


def imported(path):
    """The modules of hrseg that a file imports, also inside functions."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    found = {node for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not any(node.level for node in found), f"{path}: a relative import"
    names = {node.module or "" for node in found}
    names |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    return {name for name in names if name.split(".")[0] == "hrseg"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_lower_layers_only(path):
    me = room(path)
    if me == "__init__":
        return
    for module in imported(path):
        other = module.split(".")[1] if "." in module else "hrseg"
        if other == me or (me, other) in EXCEPTIONS:
            continue
        assert other in LAYER, f"{me} imports {module}, which is in no layer"
        assert LAYER[other] < LAYER[me], f"{me} imports {module}, of the same or a higher layer"


def test_there_is_no_import_cycle():
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in FILES
    }
    left = {name: imported(path) & set(names) - {name} for name, path in names.items()}
    while leaves := {name for name, others in left.items() if not others}:
        left = {name: others - leaves for name, others in left.items() if name not in leaves}
    assert not left, f"these modules import each other: {', '.join(left)}"


def test_only_the_transforms_import_albumentations():
    users = [path.name for path in FILES if "import albumentations" in path.read_text()]
    assert users == ["transforms.py"]
