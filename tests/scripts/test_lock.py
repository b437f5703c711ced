"""Consistency of requirements.lock with constraints.txt and setup.cfg, and the audit script."""

import configparser
import json
import os
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.paths import ROOT

LINE = re.compile(r"([\w.-]+)==(\S+) --hash=sha256:([0-9a-f]{64})")


def lines(name):
    return [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]


def locked():
    matches = [LINE.fullmatch(line) for line in lines("requirements.lock")]
    assert all(matches)
    return {canonicalize_name(match[1]): match[2] for match in matches}


def test_the_lock_contains_each_version_of_the_constraints_with_its_sha256():
    pinned = [Requirement(line) for line in lines("constraints.txt")]
    versions = {canonicalize_name(item.name): next(iter(item.specifier)).version for item in pinned}
    assert {name: Version(text).public for name, text in locked().items()} == versions


def test_the_lock_contains_each_requirement_of_setup_cfg_and_the_build_tool():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    parts = (setup["options"]["install_requires"], setup["options.extras_require"]["dev"])
    required = [line for part in parts for line in part.splitlines() if line and line[0] != "#"]
    for line in [*required, "setuptools>=77"]:
        requirement = Requirement(line)
        version = locked()[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), line


def test_the_lock_contains_no_cuda_packages():
    assert locked()["torch"].endswith("+cpu")
    assert not [name for name in locked() if name.startswith(("nvidia", "cuda", "triton"))]


VULNERABILITY = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["9.9"]}
ANSWERS = [
    ({"name": "rich", "version": "15.0.0", "vulns": []}, 0, "1 packages, 0 known"),
    ({"name": "rich", "version": "15.0.0", "vulns": [VULNERABILITY]}, 4,
     "rich 15.0.0: PYSEC-2026-1, CVE-2026-1, fixed in 9.9"),
    ({"name": "rich", "skip_reason": "no page"}, 3, "every package was skipped, no page"),
    (None, 3, "audit: no result: no route to host"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "code", "message"), ANSWERS)
def test_the_audit_reports_vulnerabilities_and_a_missing_network(tmp_path, answer, code, message):
    # A replacement for pip-audit, which reports one package or fails without a network.
    text = json.dumps({"dependencies": [answer], "fixes": []})
    (tmp_path / "pip_audit.py").write_text(
        "import sys\n"
        "pins = open(sys.argv[sys.argv.index('-r') + 1]).read().split()\n"
        "assert any(w.startswith('torch==') for w in pins) and '+' not in str(pins), pins\n"
        + ("sys.exit('Traceback:\\nno route to host')\n" if answer is None else "")
        + f"open(sys.argv[sys.argv.index('-o') + 1], 'w').write({text!r})\n"
        f"sys.exit({int(code == 4)})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(ROOT / "scripts" / "maintenance" / "audit")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
