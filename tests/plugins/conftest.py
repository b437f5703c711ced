import sys

import pytest

import hrseg.training.task  # noqa: F401  # imports all registries
from hrseg.config.parts import PARTS
from hrseg.utils import registry


@pytest.fixture
def forget():
    """Return a function that unloads all plugins. It also runs after the test."""
    built_in = [(table, dict(table)) for table in registry.REGISTRIES.values()]
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
            # Keep submodules of other packages, such as pytorch_lightning.plugins.
            if "." not in name and "plugins" in (getattr(sys.modules[name], "__file__", "") or ""):
                del sys.modules[name]
        sys.path[:] = path
        registry._installed.clear()

    yield forget
    forget()
