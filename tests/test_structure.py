"""Layers of the package: a room imports only rooms of lower layers."""

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
    """Return the imported modules of hrseg, including imports inside functions."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imports_from = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in imports_from), f"{path} has a relative import"
    names = {node.module or "" for node in imports_from}
    names |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    return {name for name in names if name.split(".")[0] == "hrseg"}


@pytest.mark.parametrize("module", sorted(set(FILES) - {"hrseg"}))
def test_a_room_imports_only_lower_layers(module):
    room = module.split(".")[1]
    for name in imported(FILES[module]):
        other = name.split(".")[1] if "." in name else "hrseg"
        if other != room and (room, other) not in EXCEPTIONS:
            assert other in LAYER, f"{module} imports {name}, which belongs to no layer"
            assert LAYER[other] < LAYER[room], (
                f"{module} imports {name} from the same or a higher layer"
            )


def test_modules_have_no_import_cycle():
    graph = {name: imported(path) & set(FILES) - {name} for name, path in FILES.items()}
    while leaves := {name for name, others in graph.items() if not others}:
        graph = {name: others - leaves for name, others in graph.items() if name not in leaves}
    assert not graph, f"these modules import each other: {', '.join(graph)}"
