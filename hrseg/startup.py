"""Keep what no command needs from being imported: a third of the seconds that imports take."""

import sys
from importlib.machinery import ModuleSpec
from typing import Any

# torchmetrics, and with it Lightning, imports them for metrics and plots that hrseg does not have.
UNUSED = ("scipy", "matplotlib")


def spare_imports() -> None:
    """Let torchmetrics, when it is imported, find no scipy and no matplotlib.

    For the process of a command: both are there for whoever imports them by name.
    """
    if "torchmetrics" not in sys.modules and not any(isinstance(f, _Watch) for f in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch:
    """Waits for the import of torchmetrics; finds nothing itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == "torchmetrics":
            sys.meta_path.remove(self)
            _deny()
        return None


def _deny() -> None:
    # What torchmetrics asks whether a package is there.
    from lightning_utilities.core import imports

    package_available, satisfied = imports.package_available, imports.RequirementCache.__bool__

    def available(package_name: str) -> bool:
        return package_name not in UNUSED and package_available(package_name)

    def satisfied_and_used(self: imports.RequirementCache) -> bool:
        return self.requirement not in UNUSED and satisfied(self)

    imports.package_available = available  # type: ignore[assignment]
    imports.RequirementCache.__bool__ = satisfied_and_used  # type: ignore[method-assign]
