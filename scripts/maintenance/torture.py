#!/usr/bin/env python3
"""Faults injected into hrseg, a table of what survived; see tests/faults.

    scripts/maintenance/torture.py --quick                  every kind, in minutes
    scripts/maintenance/torture.py --all --json F           every kind at full length: half an hour
    scripts/maintenance/torture.py checkpoint_killed dirty_data [--quick]

JSON: {kind: {"injected", "survived", "lost"}}. Exit 4 where anything was lost.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from unittest import SkipTest

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

from rich import get_console
from rich.table import Column, Table

from hrseg.training.loggers import quieten
from tests.faults import Tally
from tests.faults.kinds import KINDS


def main() -> int:
    """Run the kinds that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--all", action="store_true", help="every kind, at full length")
    parser.add_argument("--quick", action="store_true", help="as few faults as in the tests")
    parser.add_argument("--json", type=Path, help="file for the counts")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random")
    arguments = parser.parse_args()
    names = arguments.kinds or (list(KINDS) if arguments.all or arguments.quick else [])
    if not names or not set(names) <= set(KINDS):
        parser.error(f"say --all, --quick, or some of {', '.join(KINDS)}")
    quieten()
    tallies: dict[str, Tally] = {}
    table = Table(
        Column("fault", no_wrap=True), "promise", title="faults injected", title_justify="left"
    )
    for column in ("injected", "survived", "lost", "seconds"):
        table.add_column(column, justify="right")
    for name in names:
        kind, start = KINDS[name], time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            count = kind.quick if arguments.quick else kind.full
            try:
                tally = tallies[name] = kind.inject(count, Path(folder), arguments.seed)
            except SkipTest as reason:
                print(f"{name}: not injected: {reason}", flush=True)
                continue
        seconds = f"{time.monotonic() - start:.0f}"
        counts = (tally.injected, tally.survived, len(tally.lost))
        print(f"{name}: injected %d, survived %d, lost %d, {seconds} s" % counts, flush=True)
        print("".join(f"  {line}\n" for line in tally.lost), end="", flush=True)
        table.add_row(name, kind.promise, *map(str, counts), seconds)
        if arguments.json:
            arguments.json.write_text(json.dumps(_counts(tallies), indent=1))
    get_console().print(table)
    return 4 if any(tally.lost for tally in tallies.values()) else 0


def _counts(tallies: dict[str, Tally]) -> dict[str, dict[str, int]]:
    return {
        name: {"injected": t.injected, "survived": t.survived, "lost": len(t.lost)}
        for name, t in tallies.items()
    }


if __name__ == "__main__":
    sys.exit(main())
