"""Hostile configs: secrets, code and unbounded structures."""

from tests.hostile import MARKUP, table, write

FIT = ("fit", "--config", "{given}/c.yaml")
SHOWN = (*FIT, "--print-config")

TINY = """\
name: tiny
runs: out/runs
data: {name: synthetic, root: "data", num_train: 2, num_val: 2, image_size: [32, 32],
  batch_size: 2, crop_size: [32, 32], scales: [1.0, 1.0], workers: 0}
model: {backbone: hrnet_w18_small_v1}
optimizer: {name: sgd}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
loggers: []
"""


def _with(line):
    return write("c.yaml", f"{TINY}{line}\n")


def _changed(old, new):
    assert old in TINY
    return write("c.yaml", TINY.replace(old, new))


ALIASES = [f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}'] * 9)}]" for i in range(60)]
PARSED = {
    "alias bomb of 60 levels": _with("\n".join(["a0: &a0 [x,x,x,x,x,x,x,x,x]", *ALIASES])),
    "merge inside itself": _with("trainer: &a {<<: *a}"),
    "100,000 levels": _with(f"loggers: {'[' * 100_000}"),
    "tag apply": _with("ema_decay: !!python/object/apply:os.system ['touch RAN']"),
}
SECRET = "${oc.env:AWS_SECRET_ACCESS_KEY}"
VALUES = {
    "secret in the name": _changed("name: tiny", f"name: {SECRET}"),
    "secret in a whole section": _changed("{name: sgd}", SECRET),
    "secret in a name that is put together": _with("ema_decay: ${oc.env:HRSEG_${name}}"),
    "secret in a default": _with(f"ema_decay: ${{oc.env:HRSEG_NOTHING,{SECRET}}}"),
    "secret in oc.select": _with(f"losses: ${{oc.select:x,{SECRET}}}"),
    "secret behind an escape": _with(f"loggers: ['\\${{x}}{SECRET}']"),
    "key of 10 MB": _with(f"{'k' * 10_000_000}: 1"),
    "name that leads out": _changed("name: tiny", "name: ../../outside/x"),
    "name of markup": _changed("name: tiny", f"name: '{MARKUP.replace('/', '')}'"),
    "weights by URL": _changed("small_v1", "small_v1, weights: 'URL'"),
    "weights that are a device": _changed("small_v1", "small_v1, weights: /dev/zero"),
    "crop of 10^9": _changed("crop_size: [32, 32]", "crop_size: [1000000000, 1000000000]"),
}
ALLOWED = {"an environment value that is allowed": _changed('"data"', '"${oc.env:HRSEG_DATA}"')}

ARTEFACTS = [
    *table("config", PARSED, (FIT,)),
    *table("config", VALUES, (SHOWN, (*FIT, "data.root={data}", "runs=out/runs"))),
    *table("config", ALLOWED, (SHOWN, (*FIT, "runs=out/runs"))),
]
