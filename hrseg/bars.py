"""How far a command is in its files, on a terminal; what is no terminal is told nothing."""

from rich import get_console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Bar(Progress):
    """What is done, of how much, how fast, and how long the rest will take; then it is gone."""

    def __init__(self) -> None:
        """Make it; it shows itself where it is entered."""
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=get_console(),
            transient=True,
            disable=not get_console().is_terminal,
        )


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        # Of the first one nobody knows how fast it will be.
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")
