"""Files of strangers: each is harmless data or refused in a short message."""

import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image

from tests.faults import counts
from tests.hostile import Artefact, Place, Words, artefacts
from tests.watched import Canaries, Seen, watch

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "7f3e9a-the-users-own-secret",
    "HRSEG_SECRET": "5b1d2c-a-setting-of-the-user",
}
# Escapes, C1 controls, and marks that turn the direction of text; not a line's end.
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
    "run: a link in place of the page while it is written",
)  # fmt: skip


@counts(len(SPREAD), 1000)
def test_a_hostile_file_runs_nothing_and_reaches_nothing_outside_its_folder(count, tmp_path):
    """Give `count` artefacts, or all if there are not as many, to each command that takes them."""
    found = {artefact.name: artefact for artefact in artefacts()}
    names = [*SPREAD, *(name for name in found if name not in SPREAD)]
    ground = Ground(tmp_path)
    try:
        faults = [fault for name in names[:count] for fault in ground.faults(found[name])]
    finally:
        ground.canaries.close()
    lost = [fault for fault in faults if fault]
    print(f"{len(faults)} commands were given hostile files")
    assert not lost, "\n".join(lost)


class Ground:
    """What the artefacts are let loose on: a checkpoint, a run and data of the user's, canaries."""

    def __init__(self, folder: Path) -> None:
        """Make them."""
        # Once, here, and not in each of the processes that are forked.
        from tests.untrained import save_untrained

        self.folder = folder
        self.canaries = Canaries(folder / "outside")
        Image.new("RGB", (64, 64), "red").save(folder / "outside/secret.png")
        own = folder / "own"
        own.mkdir()
        photo = own / "photo.png"
        Image.effect_noise((64, 64), 60).convert("RGB").save(photo)
        checkpoint = own / "untrained.ckpt"
        self.place = Place(
            folder / "given", folder / "outside", self.canaries.port, checkpoint, own / "run", photo
        )
        self._prepare(own, lambda: save_untrained(checkpoint) and None)
        (own / "folder.yaml").write_text(FOLDER)
        (own / "tiny.yaml").write_text(TINY)
        self.data = own / "data"
        words = ("fit", "--config", "tiny.yaml", "runs=runs", f"data.root={self.data}")
        self._prepare(own, lambda: _command(words))
        os.rename(os.path.realpath(own / "runs/tiny/latest"), own / "run")
        self.canaries.arm()

    def _prepare(self, own: Path, call: Callable[[], object]) -> None:
        """Do the user's own work in a process apart, so that this one stays as it is."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.chdir(own)
                out = os.open(own / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(out, 1)
                os.dup2(out, 2)
                code = int(call() or 0)
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0, (own / "log").read_text()

    def faults(self, artefact: Artefact) -> list[str | None]:
        """Return what went wrong with each of an artefact's commands, None for nothing."""
        return [self._fault(artefact, words) for words in artefact.commands]

    def _fault(self, artefact: Artefact, words: Words) -> str | None:
        given, out = self.place.given, self.folder / "work"
        for made in (given, out):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        (self.place.outside / "victim.txt").write_text("untouched")
        artefact.make(self.place)
        self.canaries.touched()  # by the maker
        seen = self.run(words, out, artefact.name.startswith("run: "))
        events = [*seen.events, *self.canaries.touched()]
        if artefact.follows:
            read = ("open for reading", "canary secret.txt was touched (0x20)")
            events = [event for event in events if not event.startswith(read)]
        wrong = [*events, *_endings(seen), *self._leaks(seen, out)]
        if not wrong:
            return None
        return f"{artefact.name}; {' '.join(words)[:150]}: {'; '.join(wrong)[:1500]}"

    def run(self, words: Words, out: Path, run: bool = False) -> Seen:
        """Run a command in the folder `out` under the hook; a `run` is given to be written to."""
        names = {
            **{"given": self.place.given, "photo": self.place.photo, "data": self.data},
            **{"checkpoint": self.place.checkpoint, "port": self.place.port},
            "folder": self.folder / "own/folder.yaml",
        }
        filled = [re.sub(r"\{(\w+)\}", lambda m: str(names.get(m[1], m[0])), w) for w in words]
        own = self.folder / "own"
        environment = {**SECRETS, "HRSEG_DATA": str(self.data), "HOME": str(out)}
        call = partial(_in, out, tuple(filled))
        writable = [out, self.data, *([self.place.given] if run else [])]
        return watch(call, [self.place.given, own], writable, environment)

    def _leaks(self, seen: Seen, out: Path) -> list[str]:
        """Return where secrets of the user have come to lie."""
        found = []
        secrets = [value.encode() for value in SECRETS.values()] + [Canaries.SECRET.encode()]
        if any(secret in seen.output for secret in secrets):
            found.append("a secret was printed")
        for path in (p for top in (out, self.place.given) for p in top.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**27:
                data = path.read_bytes()
                found += [f"a secret lies in {path.name}" for secret in secrets if secret in data]
        if (self.place.outside / "victim.txt").read_text() != "untouched":
            found.append("victim.txt was overwritten")
        if (self.place.outside / "hostile_code_ran").exists():
            found.append("hostile code ran")
        return found


def _in(folder: Path, words: Words) -> int | None:
    os.chdir(folder)
    return _command(words)


def _command(words: Words) -> int | None:
    """Run a command line, or one of the functions of the same use."""
    import hrseg
    from hrseg.cli import main
    from hrseg.errors import HrsegError

    if words[0] not in ("load", "load_weights"):
        return main(list(words))
    try:
        if words[0] == "load":
            hrseg.load(words[1])
        else:
            hrseg.load_weights(hrseg.create_model("hrnet_w18_small_v1", num_classes=3), words[1])
    except HrsegError as error:
        print(f"hrseg: {error}")
        return error.exit_code
    return 0


def _endings(seen: Seen) -> list[str]:
    """Return what is wrong with how a command ended, and with what it said."""
    wrong = []
    text = seen.output.decode("utf-8", "replace")
    if seen.exit_code not in (0, 2, 3, 4):
        wrong.append(f"exit code {seen.exit_code}")
    if "Traceback" in text:
        wrong.append("a traceback: " + " | ".join(text.strip().splitlines()[-4:]))
    if raw := RAW.search(text):
        wrong.append(f"raw control in {text[max(0, raw.start() - 60) : raw.end() + 30]!r}")
    said = text.rpartition("hrseg: ")[2].strip() if "hrseg: " in text and seen.exit_code else ""
    if len(said.splitlines()) > LINES or len(said) > 4000:
        wrong.append(f"a message of {len(said.splitlines())} lines, {len(said)} letters")
    return wrong


TINY = """\
name: tiny
data: {name: synthetic, root: data, num_train: 2, num_val: 2, image_size: [32, 32], batch_size: 2,
  crop_size: [32, 32], scales: [1.0, 1.0], workers: 0}
model: {backbone: hrnet_w18_small_v1}
optimizer: {name: sgd}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
loggers: []
"""
FOLDER = """\
name: folder
data: {name: folder, root: data, batch_size: 2, crop_size: [32, 32], scales: [1.0, 1.0],
  workers: 0, val_fraction: 0.5}
model: {backbone: hrnet_w18_small_v1}
optimizer: {name: sgd}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
loggers: []
"""
