import sys

import pytest

import hrseg.training.task  # noqa: F401  # which has all registries
from hrseg.config.parts import PARTS
from hrseg.utils import registry

PLUGINS = ("focal_loss", "blobs_dataset", "tiny_backbone")


@pytest.fixture
def forget(monkeypatch):
    """Return a function that forgets all plugins, as a new process; it runs at the end too."""
    built_in = [(r, dict(r)) for r in registry.REGISTRIES.values()]
    parts = {section: dict(names) for section, names in PARTS.items()}
    modules, path = set(sys.modules), list(sys.path)

    def forget():
        for table, entries in built_in:
            table.clear()
            table.update(entries)
            table.plugins = {}
        for section, names in parts.items():
            PARTS[section] = dict(names)
        for name in set(sys.modules) - modules:
            if "." not in name and not hasattr(sys.modules[name], "__path__"):
                origin = getattr(sys.modules[name], "__file__", None) or ""
                if "plugins" in origin or "pytest" in origin:
                    del sys.modules[name]
        sys.path[:] = path
        registry._installed.clear()

    yield forget
    forget()
