#!/usr/bin/env python3
"""Checks and measurements of hrseg on a machine with an NVIDIA GPU, in under 8 minutes.

    scripts/gpu_proof --json proof.json                     all checks on the GPU
    scripts/gpu_proof --json proof.json --wheels wheels     missing packages from a folder
    scripts/gpu_proof --device cpu --json proof.json        the same code at small sizes

The network is not used. Each check runs in its own process; the JSON file has one entry per check
and is written after each: "ok", "seconds", its figures, "rows" of the table, and "error" or
"skipped". A Markdown table is written beside it.

Exit codes: 0 no check failed, 2 wrong options, missing packages or no device, 4 a check failed.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from job import Job, run_in_process
from packages import ROOT, PackageError, add_to_path, installed


class Check(NamedTuple):
    """A check, a function of a module beside this file, and its time limit in seconds."""

    module: str
    name: str
    limit: float


CHECKS = (
    Check("checks_golden", "machine", 60),
    Check("checks_golden", "golden_logits", 90),
    Check("checks_golden", "golden_training", 60),
    Check("checks_training", "grad_scaler", 60),
    Check("checks_resume", "resume", 120),
    Check("checks_training", "ddp", 60),
    Check("checks_evaluation", "out_of_memory", 60),
    Check("checks_speed", "training_speed", 180),
    Check("checks_evaluation", "evaluation_speed", 120),
    Check("checks_speed", "data_loading", 60),
    Check("checks_compile", "torch_compile", 120),
    Check("checks_export", "onnx_runtime", 60),
    Check("checks_export", "tensorrt", 90),
)


def main() -> int:
    """Run the checks, and return the exit code."""
    arguments = parse()
    add_to_path(str(ROOT), str(Path(__file__).parent))
    try:
        with installed(arguments.wheels):
            results = run(arguments)
    except PackageError as error:
        print(f"gpu_proof: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"gpu_proof: stopped; {arguments.json} has the finished checks", file=sys.stderr)
        return 130
    if not results["machine"]["ok"]:
        print(
            f"gpu_proof: --device {arguments.device}: {results['machine']['error']}.\n"
            "Expected: an NVIDIA GPU and a CUDA build of torch. Fix: --device cpu",
            file=sys.stderr,
        )
        return 2
    failed = [name for name, entry in results.items() if not entry["ok"]]
    print(f"\n{arguments.json}, {arguments.markdown}: {len(results)} entries, {len(failed)} failed")
    return 4 if failed else 0


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="gpu_proof", description=str(__doc__).splitlines()[0])
    add = parser.add_argument
    add("--json", type=Path, required=True, metavar="FILE", help="file for the figures")
    add("--markdown", type=Path, metavar="FILE", help="file for the table (FILE of --json, .md)")
    add("--device", choices=["cuda", "cpu"], default="cuda", help="device (cuda)")
    add("--size", choices=["full", "small"], help="full, or small on a CPU")
    add("--wheels", type=Path, metavar="DIR", help="folder with wheels of missing packages")
    add("--minutes", type=float, default=7.5, help="time limit of all checks (7.5)")
    arguments = parser.parse_args()
    arguments.size = arguments.size or ("small" if arguments.device == "cpu" else "full")
    arguments.markdown = arguments.markdown or arguments.json.with_suffix(".md")
    for path in (arguments.json, arguments.markdown):
        try:
            path.touch()
        except OSError as error:
            parser.error(f"{path}: {error.strerror}")
    return arguments


def run(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run the checks one after the other, and write the files after each."""
    end, results = time.monotonic() + 60 * arguments.minutes, dict[str, dict[str, Any]]()
    for check in CHECKS:
        left = end - time.monotonic() if results else check.limit
        with tempfile.TemporaryDirectory(prefix="gpu-proof-") as folder:
            job = Job(arguments.device, arguments.size == "small", Path(folder), dict(results))
            if left > 0:
                entry = run_in_process(check.module, check.name, job, min(check.limit, left))
            else:
                error = f"not run: --minutes {arguments.minutes:g} are over"
                entry = {"ok": False, "seconds": 0.0, "error": error}
        results[check.name] = entry
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
        arguments.markdown.write_text(table(results), encoding="utf-8")
        print("\n".join(lines(check.name, entry)), flush=True)
        if check.name == "machine" and not entry["ok"]:
            break
    return results


def lines(name: str, entry: dict[str, Any]) -> list[str]:
    """Return the output for a finished check."""
    outcome = "skipped" if "skipped" in entry else "ok" if entry["ok"] else "FAILED"
    reason = entry.get("error") or entry.get("skipped") or ""
    first = f"{name:17} {outcome:8} {entry['seconds']:6.1f} s  {reason}".rstrip()
    return [first, *(f"    {case}: {text}" for case, text in entry.get("rows", []))]


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table for docs/pages/measurements.md."""
    machine = results["machine"]
    versions = [f"torch {machine.get('torch')}"]
    versions += [f"{key} {machine[key]}" for key in ("cuda", "cudnn", "driver") if key in machine]
    versions += [f"hrseg {machine.get('hrseg')} ({machine.get('commit')})"]
    rows = []
    for name, entry in results.items():
        if "skipped" in entry:
            rows.append([f"`{name}`", f"skipped: {entry['skipped']}"])
        elif not entry["ok"]:
            rows.append([f"`{name}`", f"**failed**: {entry.get('error')}"])
        rows += entry.get("rows", [])
    text = "\n".join(f"| {case} | {result} |" for case, result in rows)
    return (
        f"{machine.get('device')}, {machine.get('processor')}, {', '.join(versions)}.\n\n"
        f"| measurement | result |\n|---|---|\n{text}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
