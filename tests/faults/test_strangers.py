"""Untrusted files: each is read as harmless data, or refused with a short message."""

import os
import re
import shutil
from functools import partial
from pathlib import Path

from PIL import Image

from tests.faults import inject
from tests.hostile import Paths, artefacts
from tests.hostile.configs import TINY
from tests.watched import Canaries, watch

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "7f3e9a-the-users-own-secret",
    "HRSEG_SECRET": "5b1d2c-a-setting-of-the-user",
}
# Escapes, C1 controls and marks for the text direction, without line ends.
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
LINES = 4
SPREAD = (
    "weights: exec in optimizer state, legacy",
    "weights: torch.export archive",
    "safetensors: overlapping offsets",
    "config: alias bomb of 60 levels",
    "config: secret in a whole section",
    "config: tag apply",
    "image: VRT of an address",
    "image: TIFF of 2^32 x 2^32",
    "onnx: data outside",
    "data: list of above",
    "run: a link instead of: the page while it is written",
)  # fmt: skip
FOLDER = TINY.replace("synthetic, root: \"data\", num_train: 2, num_val: 2, image_size: [32, 32]",
                      "folder, root: data, val_fraction: 0.5")  # fmt: skip


@inject(len(SPREAD), 1000)
def test_a_hostile_file_runs_no_code_and_accesses_nothing_outside_its_folder(count, tmp_path):
    """Test the first `count` artefacts with each command that reads them."""
    sandbox, by_name = Sandbox(tmp_path), {artefact.name: artefact for artefact in artefacts()}
    for name in list(dict.fromkeys([*SPREAD, *by_name]))[:count]:
        for words in by_name[name].commands:
            yield sandbox.fault(by_name[name], words)


class Sandbox:
    """Folders, canaries and a finished run for commands on hostile files."""

    def __init__(self, folder):
        # Import once in this process instead of in each forked process.
        from tests.untrained import save_untrained

        self.out, self.own, outside = folder / "work", folder / "own", folder / "outside"
        self.data = self.own / "data"
        self.own.mkdir()
        self.canaries = Canaries(outside)
        files = (self.own / name for name in ("untrained.ckpt", "run", "photo.png"))
        self.paths = Paths(folder / "given", outside, self.canaries.port, *files)
        Image.new("RGB", (64, 64), "red").save(outside / "secret.png")
        Image.effect_noise((64, 64), 60).convert("RGB").save(self.paths.photo)
        (self.own / "folder.yaml").write_text(FOLDER)
        (self.own / "tiny.yaml").write_text(TINY)
        words = ("fit", "--config", "tiny.yaml", "runs=runs", f"data.root={self.data}")
        seen = watch(partial(_command, self.own, words), [], [self.own])
        assert seen.exit_code == 0, seen.output
        save_untrained(self.paths.checkpoint)
        os.rename(os.path.realpath(self.own / "runs/tiny/latest"), self.paths.run)
        self.canaries.arm()

    def fault(self, artefact, words):
        given, victim = self.paths.given, self.paths.outside / "victim.txt"
        for made in (given, self.out):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        victim.write_text("untouched")
        artefact.make(self.paths)
        self.canaries.touched()  # by `make`
        names = {**vars(self.paths), "data": self.data, "folder": self.own / "folder.yaml"}
        filled = [re.sub(r"\{(\w+)\}", lambda m: str(names.get(m[1], m[0])), w) for w in words]
        environment = {**SECRETS, "HRSEG_DATA": str(self.data), "HOME": str(self.out)}
        writable = [self.out, self.data, *[given] * artefact.name.startswith("run: ")]
        call = partial(_command, self.out, filled)
        seen = watch(call, [given, self.own], writable, environment)
        events = [*seen.events, *self.canaries.touched()]
        if artefact.follows:
            read = ("open for reading", "canary secret.txt was touched (0x20)")
            events = [event for event in events if not event.startswith(read)]
        if victim.read_text() != "untouched" or Path(self.paths.fill("RAN")).exists():
            events.append("victim.txt was overwritten, or hostile code ran")
        wrong = [*events, *_endings(seen), *self._leaks(seen)]
        case = f"{artefact.name}; {' '.join(words)[:150]}"
        return f"{case}: {'; '.join(wrong)[:1500]}" if wrong else None

    def _leaks(self, seen):
        """Return the files and outputs with secrets of the user."""
        texts = {"the output": seen.output}
        for path in (*self.out.rglob("*"), *self.paths.given.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**27:
                texts[path.name] = path.read_bytes()
        secrets = [secret.encode() for secret in (*SECRETS.values(), Canaries.SECRET)]
        return [f"a secret is in {name}" for name, text in texts.items()
                if any(secret in text for secret in secrets)]  # fmt: skip


def _command(folder, words):
    import hrseg
    from hrseg.cli import main
    from hrseg.errors import HrsegError

    os.chdir(folder)
    try:
        if words[0] == "load":
            hrseg.load(words[1])
        elif words[0] == "load_weights":
            hrseg.load_weights(hrseg.create_model("hrnet_w18_small_v1", num_classes=3), words[1])
        else:
            return main(list(words))
    except HrsegError as error:
        print(f"hrseg: {error}")
        return error.exit_code
    return 0


def _endings(seen):
    text = seen.output.decode("utf-8", "replace")
    message = text.rpartition("hrseg: ")[2].strip() if "hrseg: " in text and seen.exit_code else ""
    wrong = {
        f"exit code {seen.exit_code}": seen.exit_code not in (0, 2, 3, 4),
        f"a traceback: {text[-400:]!r}": "Traceback" in text,
        f"raw controls in {text[-400:]!r}": RAW.search(text),
        f"a long message: {message[:200]}": len(message.splitlines()) > LINES
        or len(message) > 4000,
    }
    return [fault for fault, present in wrong.items() if present]
