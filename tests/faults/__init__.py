"""Fault injection: one module per kind, run by test_faults.py and maintenance/torture.py.

A module has `inject(count, folder, seed) -> Tally`: it does to hrseg what the world does, `count`
times, below an empty folder, and tells what became of it. KINDS in kinds.py lists them.
"""

from dataclasses import dataclass, field


@dataclass
class Tally:
    """What became of the faults of one kind.

    Attributes:
        injected: how many faults there were.
        lost: a line for each that broke the promise: which fault, what was expected, what came.
    """

    injected: int = 0
    lost: list[str] = field(default_factory=list)

    def record(self, fault: str | None) -> None:
        """Count one fault; `fault` says what was lost, None that nothing was."""
        self.injected += 1
        if fault is not None:
            self.lost.append(fault)

    @property
    def survived(self) -> int:
        """How many faults changed nothing that was promised."""
        return self.injected - len(self.lost)
