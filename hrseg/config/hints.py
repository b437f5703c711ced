"""Causes and fixes in the error messages of configs: YAML syntax, file names, keys, values."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from hrseg.config.common_keys import COMMON_KEYS
from hrseg.config.parts import PARTS
from hrseg.config.schema import InferenceConfig, ModelConfig
from hrseg.config.trainer import TrainerConfig
from hrseg.utils.text import one_line

VARIABLES = "Fix: write ~ for the home folder, or ${oc.env:HRSEG_DATA} for a variable HRSEG_DATA."
_KINDS = {b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"PK\x03\x04": "a checkpoint"}


def yaml_reason(text: str, error: yaml.MarkedYAMLError) -> str:
    """Return line, cause and fix of a YAML syntax error."""
    lines = text.splitlines()
    mark = error.problem_mark
    if mark is None:
        return f"{one_line(str(error.problem))}."
    begin = error.context_mark.line if error.context_mark else mark.line
    problem = str(error.problem)
    if "'\\t'" in problem:
        return f"Line {mark.line + 1} has a tab. Fix: indent with spaces, not tabs."
    if missing := re.search(r"expected ',' or '([\]}])'", problem):
        return f"Line {begin + 1}: the bracket is not closed. Fix: add {missing[1]}"
    if "could not find expected ':'" in problem and begin < len(lines):
        word = one_line(lines[begin].strip())
        return f"Line {begin + 1}: no colon after {word!r}. Expected: `key: value`. Fix: `{word}:`"
    if "mapping values are not allowed" in problem:
        return _misplaced_colon(lines, mark.line)
    return f"Line {mark.line + 1}: {one_line(problem)}."


def _misplaced_colon(lines: list[str], index: int) -> str:
    above = next((line for line in reversed(lines[:index]) if line.strip()), "")
    if glued := re.match(r"\s*(\w+):(\S+)$", above):
        fix = f"Fix: `{one_line(f'{glued[1]}: {glued[2]}')}`"
        return f"Line {index}: no space after the colon in {one_line(glued[0].strip())!r}. {fix}"
    line = lines[index]
    if len(line) - len(line.lstrip()) > len(above) - len(above.lstrip()):
        return f"Line {index + 1} is indented deeper than the line above. Fix: indent both alike."
    return f"Line {index + 1}: a value has a colon and a space. Fix: put the value in quotes."


def not_text(path: Path, content: bytes) -> str:
    """Return the message for a file other than text in UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return (
            f"{path} is not valid YAML in UTF-8: it is UTF-16.\n"
            "Expected: a text file in UTF-8. Fix: save it as UTF-8."
        )
    kind = next((kind for start, kind in _KINDS.items() if content.startswith(start)), "binary")
    fix = f"--checkpoint {path}" if kind == "a checkpoint" else "--config FILE"
    return f"{path} is not valid YAML in UTF-8: it is {kind}.\nExpected: a text file. Fix: {fix}"


def no_config(name: str, shipped: list[str]) -> str:
    """Return the message for a name of neither a file nor a shipped config."""
    expected = "Expected: a YAML file or the name of a shipped config."
    path = Path(name)
    if path.is_dir():
        if (path / "config.yaml").is_file():
            return (
                f"{name} is a run folder, not a config.\n"
                f"{expected} Fix: --config {path / 'config.yaml'}\n"
                f"`hrseg fit --resume {name}` resumes the run."
            )
        return (
            f"{name} is a folder, not a config.\n"
            f"{expected} Fix: `hrseg init {name}` writes a config for its images."
        )
    if not path.parent.is_dir():
        return (
            f"{name} does not exist: the folder {path.parent} does not exist.\n"
            f"{expected} Fix: `hrseg configs` lists the shipped configs."
        )
    files = [str(file) for ending in ("yaml", "yml") for file in path.parent.glob(f"*.{ending}")]
    near = get_close_matches(name, files, n=1, cutoff=0.7)
    near += get_close_matches(name.removesuffix(".yaml"), shipped, n=3)
    hint = f" Did you mean: {', '.join(near)}?" if near else ""
    return (
        f"{name} is neither a file nor a shipped config.{hint}\n{expected}\n"
        "Fix: `hrseg configs` lists the shipped configs; `hrseg init FOLDER` writes a new config."
    )


def other_sections(name: str) -> str:
    """Return a hint with the keys of this name in other sections."""
    if name in COMMON_KEYS:
        return f" Did you mean: {COMMON_KEYS[name]}?"
    models: dict[str, list[type[BaseModel]]] = {
        "model": [ModelConfig], "inference": [InferenceConfig], "trainer": [TrainerConfig],
        **{key: list(PARTS[key].values()) for key in ("data", "optimizer", "schedule")},
    }  # fmt: skip
    pairs = [
        (s, field) for s, kinds in models.items() for kind in kinds for field in kind.model_fields
    ]
    near = get_close_matches(name, {field for _, field in pairs}, n=2, cutoff=0.7)
    keys = dict.fromkeys(f"{section}.{field}" for section, field in pairs if field in near)
    return f" Did you mean: {', '.join(keys)}?" if keys else ""


def value_repair(written: Any, message: str) -> str:
    """Return the value in the expected spelling, or "" if it is unknown.

    Args:
        written: the wrong value, from the file or the command line.
        message: the error, with the expected values in words.
    """
    if "${" in str(written):  # it may be a secret
        return ""
    if written == "None" and "null" in message:
        return "null"
    if "a list of" in message and isinstance(written, str | int | float):
        return f"[{', '.join(part for part in re.split(r'[,; ]+', str(written)) if part)}]"
    if "a list of texts" in message and isinstance(written, list):
        return f"[{', '.join(map(_quoted, written))}]  (quote yes, no, null, 0123, a: b)"
    if "pairs of" in message and isinstance(written, dict):
        pairs = [str(key).replace(":", ": ") for key, value in written.items() if value is None]
        return f'"{{{", ".join(pairs)}}}"  (a space after each colon)' if pairs else ""
    return ""


def _quoted(item: Any) -> str:
    if isinstance(item, bool):
        return '"yes"' if item else '"no"'
    if isinstance(item, dict):
        return ", ".join(f'"{key}: {value}"' for key, value in item.items())
    return '"null"' if item is None else str(item)
