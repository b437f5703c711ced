"""Configs that read what is not theirs, or never end."""

from tests.hostile import CONTROL, MARKUP, Artefact

FIT = ("fit", "--config", "{given}/c.yaml")
SHOWN = (*FIT, "--print-config")
REAL = (*FIT, "data.root={data}", "runs=out/runs")

TINY = """\
name: {name}
runs: out/runs
data: {{name: synthetic, root: "{root}", num_train: 2, num_val: 2, image_size: [32, 32],
  batch_size: 2, crop_size: [32, 32], scales: [1.0, 1.0], workers: 0}}
model: {{backbone: hrnet_w18_small_v1}}
optimizer: {{name: sgd}}
trainer: {{max_epochs: 1, accelerator: cpu, enable_progress_bar: false}}
loggers: []
"""


def tiny(name="tiny", root="data"):
    return TINY.format(name=name, root=root)


def _text(text):
    def make(place):
        filled = text.replace("OUTSIDE", str(place.outside)).replace("URL", place.url)
        (place.given / "c.yaml").write_text(filled, encoding="utf-8")

    return make


def _with(line, **changed):
    return _text(tiny(**changed) + line)


def _section(old, new):
    return _text(tiny().replace(old, new))


def _bomb(levels, width=9):
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    for i in range(levels):
        lines.append(f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}'] * width)}]")
    return "\n".join(lines) + "\n"


SECRET = "${oc.env:AWS_SECRET_ACCESS_KEY}"
TAGS = {
    "apply": "!!python/object/apply:os.system ['touch OUTSIDE/hostile_code_ran']",
    "new": "!!python/object/new:os.system ['touch OUTSIDE/hostile_code_ran']",
    "name": "!!python/name:os.system",
    "module": "!!python/module:antigravity",
    "tuple": "!!python/tuple [1, 2]",
    "foreign": "!omegaconf.dictconfig {}",
}
SECRETS = {
    "a value": _with(f"ema_decay: {SECRET}\n"),
    "the name": _text(tiny(name=SECRET)),
    "a whole section": _section("optimizer: {name: sgd}", f"optimizer: {SECRET}"),
    "the name of a section": _section("name: sgd", f"name: {SECRET}"),
    "the losses": _with(f"losses: {SECRET}\n"),
    "a loss": _with(f"losses: [{SECRET}]\n"),
    "a head": _section("hrnet_w18_small_v1", f"hrnet_w18_small_v1, head: {SECRET}"),
    "a key": _with(f'"{SECRET}": 1\n'),
    "a key of the trainer": _section("max_epochs: 1", f'max_epochs: 1, "{SECRET}": 1'),
    "a name that is put together": _with("ema_decay: ${oc.env:HRSEG_${name}}\n"),
    "a default": _with("ema_decay: ${oc.env:HRSEG_NOTHING,${oc.env:AWS_SECRET_ACCESS_KEY}}\n"),
    "oc.decode": _with("ema_decay: ${oc.decode:${oc.env:AWS_SECRET_ACCESS_KEY}}\n"),
    "oc.create": _section("optimizer: {name: sgd}", "optimizer: ${oc.create:{name: sgd}}"),
    "oc.select": _with(f"losses: ${{oc.select:x,{SECRET}}}\n"),
    "oc.deprecated": _with(f"losses: ${{oc.deprecated:optimizer,'{SECRET}'}}\n"),
    "escapes": _with("loggers: ['\\${x}${oc.env:AWS_SECRET_ACCESS_KEY}']\n"),
}
VALUES = {
    "interpolation into itself": _with("ema_decay: ${ema_decay}\n"),
    "interpolation in a circle": _with("ema_decay: ${seed}\nseed: ${ema_decay}\n"),
    "interpolation of a section into itself": _section("{name: sgd}", "${optimizer}"),
    "interpolation of the whole": _with("loggers: ${.}\n"),
    "batch of 10^30": _section("batch_size: 2", f"batch_size: {10**30}"),
    "number of 10^5 digits": _with(f"seed: {'9' * 100_000}\n"),
    "infinity": _section("{name: sgd}", "{name: sgd, lr: .inf}"),
    "NaN": _section("scales: [1.0, 1.0]", "scales: [.nan, .nan]"),
    "key of control": _with(f'"{CONTROL.encode("unicode_escape").decode()}\\n\\n\\n\\nx": 1\n'),
    "value of control": _section("hrnet_w18_small_v1",
                                 f'"{CONTROL.encode("unicode_escape").decode()}\\n\\n\\n"'),
    "key of lists": _with("? [1, 2]\n: 3\n"),
    "key of null": _with("null: 3\n"),
    "key of 10 MB": _with(f"{'k' * 10_000_000}: 1\n"),
    "name that leads out": _text(tiny(name="../../outside/x")),
    "name of dots": _text(tiny(name="'..'")),
    "name of control": _text(tiny(name='"a\\e[2Jb"')),
    "name with NUL": _text(tiny(name='"a\\0b"')),
    "name of a surrogate": _text(tiny(name='"a\\uDCFF"')),
    "name that turns": _text(tiny(name='"a\\u202Egnp"')),
    "name of 300 letters": _text(tiny(name="a" * 300)),
    "root with NUL": _text(tiny(root="a\\0b")),
    "root of control": _text(tiny(root="\\e[2J\\e]52;c;aGk=\\a")),
    "unknown logger": _section("loggers: []", "loggers: [os]"),
    "strategy of code": _section("accelerator: cpu", "accelerator: cpu, strategy: 'os.system'"),
    "accelerator of code": _section("accelerator: cpu", 'accelerator: "__import__(\'os\')"'),
    "plugins of code": _section("accelerator: cpu", "accelerator: cpu, plugins: [os.system]"),
    "profiler of code": _section("accelerator: cpu", "accelerator: cpu, profiler: os.system"),
    "precision of code": _section("accelerator: cpu", "accelerator: cpu, precision: os.system"),
    "devices of code": _section("accelerator: cpu", "accelerator: cpu, devices: os.system"),
    "a model registry": _section("accelerator: cpu", "accelerator: cpu, model_registry: a/b"),
    "barebones": _section("accelerator: cpu", "accelerator: cpu, barebones: true"),
    "weights by URL": _section("small_v1", "small_v1, weights: 'URL'"),
    "weights that are a device": _section("small_v1", "small_v1, weights: /dev/zero"),
    "weights that are the environment": _section(
        "small_v1", "small_v1, weights: /proc/self/environ"),
    "crop of 10^9": _section("crop_size: [32, 32]", "crop_size: [1000000000, 1000000000]"),
    "scale of 10^9": _section("scales: [1.0, 1.0]", "scales: [1.0e9, 1.0e9]"),
    "cache that is no cache": _section("workers: 0", "workers: 0, cache: OUTSIDE"),
}  # fmt: skip
NAMES = {"markup": MARKUP.replace("/", ""), "script": "<img src=x onerror=alert(1)>"}


def _binary(place):
    (place.given / "c.yaml").write_bytes(b"\0\x89PNG\r\n")


def _latin(place):
    (place.given / "c.yaml").write_bytes(tiny().encode() + b"a: \xff\xfe\n")


ARTEFACTS = [
    *(Artefact(f"config: alias bomb of {n} levels", _text(_bomb(n) + tiny()), (FIT,))
      for n in (3, 5, 9, 60)),
    Artefact("config: list inside itself", _with("loggers: &a [*a]\n"), (FIT,)),
    Artefact("config: merge inside itself", _with("trainer: &a {<<: *a}\n"), (FIT,)),
    Artefact("config: 100,000 levels", _with(f"loggers: {'[' * 100_000}\n"), (FIT,)),
    Artefact("config: 900 levels", _with(f"loggers: {'[' * 900}{']' * 900}\n"), (FIT,)),
    Artefact("config: 300 levels", _with(f"loggers: {'[' * 300}{']' * 300}\n"), (FIT,)),
    *(Artefact(f"config: tag {name}", _with(f"ema_decay: {tag}\n"), (FIT,))
      for name, tag in TAGS.items()),
    *(Artefact(f"config: secret in {name}", make, (SHOWN, REAL)) for name, make in SECRETS.items()),
    *(Artefact(f"config: {name}", make, (SHOWN, REAL)) for name, make in VALUES.items()),
    *(Artefact(f"config: name of {key}", _text(tiny(name=f"'{name}'")), (SHOWN, REAL))
      for key, name in NAMES.items()),
    Artefact("config: no UTF-8", _latin, (FIT,)),
    Artefact("config: binary", _binary, (FIT,)),
    Artefact("config: an environment value that is allowed", _text(
        tiny(root="${oc.env:HRSEG_DATA}")), (SHOWN, (*FIT, "runs=out/runs"))),
]  # fmt: skip
