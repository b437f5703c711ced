"""Layers: a package of hrseg imports only packages of lower layers."""

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
LAYER = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "hrseg").rglob("*.py"))
}


def imported(path):
    """Return the modules of hrseg that a file imports, also in functions."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in froms), f"{path}: a relative import"
    names = {node.module or "" for node in froms}
    names |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    return {name for name in names if name.split(".")[0] == "hrseg"}


@pytest.mark.parametrize("module", sorted(set(FILES) - {"hrseg"}))
def test_a_package_imports_only_lower_layers(module):
    package = module.split(".")[1]
    for name in imported(FILES[module]):
        other = name.split(".")[1] if "." in name else "hrseg"
        if other != package and (package, other) not in EXCEPTIONS:
            assert other in LAYER, f"{module} imports {name}, which has no layer"
            assert LAYER[other] < LAYER[package], f"{module} imports {name} of a higher layer"


def test_there_is_no_import_cycle():
    imports = {name: imported(path) & set(FILES) - {name} for name, path in FILES.items()}
    while leaves := {name for name, others in imports.items() if not others}:
        imports = {name: others - leaves for name, others in imports.items() if name not in leaves}
    assert not imports, f"these modules import each other: {', '.join(imports)}"
