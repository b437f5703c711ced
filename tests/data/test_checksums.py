"""Manifest of sha256 checksums: written, read, compared."""

import shutil
import subprocess

import pytest

from hrseg.data.checksums import NAME, Manifest, digest_of, write_manifest
from hrseg.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    for name in ("a.png", "sub/b.png", "two words.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "data"


def written(root):
    files = [path for path in root.rglob("*.png")]
    write_manifest(root / NAME, root, [(path, digest_of(path)) for path in files])
    return Manifest.read(root / NAME, root)


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum")
def test_sha256sum_reads_the_manifest_and_finds_a_changed_file(root):
    written(root)
    check = ["sha256sum", "--strict", "-c", NAME]
    assert subprocess.run(check, cwd=root, capture_output=True).returncode == 0
    (root / "two words.png").write_bytes(b"other")
    done = subprocess.run(check, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.count("FAILED") == 1


def test_changed_new_and_missing_files_are_errors_with_their_names(root):
    manifest = written(root)
    (root / "a.png").write_bytes(b"A.png")
    with pytest.raises(DataError, match=r"a.png has changed"):
        manifest.compare(root / "a.png", digest_of(root / "a.png"))
    (root / "late.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"late.png is not in the manifest"):
        manifest.compare(root / "late.png", digest_of(root / "late.png"))
    with pytest.raises(DataError, match=r"gone.png does not exist"):
        digest_of(root / "gone.png")


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum")
def test_a_manifest_of_sha256sum_is_read(root):
    command = "find . -type f -print0 | xargs -0 sha256sum > ../sums && mv ../sums " + NAME
    subprocess.run(command, shell=True, cwd=root, check=True)
    paths = list(root.rglob("*.png"))
    manifest = Manifest.read(root / NAME, root)
    assert len(paths) == len(manifest.digests) > 1
    for path in paths:
        manifest.compare(path, digest_of(path))


@pytest.mark.parametrize("line", ["abc  a.png", "0" * 64 + " a.png", "z" * 64 + "  a.png"])
def test_an_invalid_line_is_an_error_with_its_number(root, line):
    (root / NAME).write_text("0" * 64 + f"  a.png\n{line}\n")
    with pytest.raises(ConfigError, match=rf"{NAME}, line 2 is invalid.\nExpected: a sha256"):
        Manifest.read(root / NAME, root)


def test_the_error_of_a_missing_manifest_has_the_command_for_it(root):
    with pytest.raises(ConfigError, match="hrseg data check --hash"):
        Manifest.read(root / "none", root)
