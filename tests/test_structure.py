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
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "hrseg").rglob("*.py"))
}


def imported(path):
    """Return the modules of hrseg that a file imports, also inside functions."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in froms), f"{path}: a relative import"
    names = {node.module or "" for node in froms}
    names |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    return {name for name in names if name.split(".")[0] == "hrseg"}


@pytest.mark.parametrize("module", sorted(set(FILES) - {"hrseg"}))
def test_a_room_imports_lower_layers_only(module):
    room = module.split(".")[1]
    for name in imported(FILES[module]):
        other = name.split(".")[1] if "." in name else "hrseg"
        if other != room and (room, other) not in EXCEPTIONS:
            assert other in LAYER, f"{module} imports {name}, which is in no layer"
            assert LAYER[other] < LAYER[room], f"{module} imports {name}, of no lower layer"


def test_there_is_no_import_cycle():
    left = {name: imported(path) & set(FILES) - {name} for name, path in FILES.items()}
    while leaves := {name for name, others in left.items() if not others}:
        left = {name: others - leaves for name, others in left.items() if name not in leaves}
    assert not left, f"these modules import each other: {', '.join(left)}"
