"""Model folder for the Hugging Face Hub: weights, config, scores and model card of a run."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from hrseg.checkpoints.hub import FILE, is_remote
from hrseg.checkpoints.loading import load_model
from hrseg.checkpoints.metadata import read_metadata
from hrseg.checkpoints.reading import write_safetensors
from hrseg.checkpoints.runs import checkpoint_at
from hrseg.config.loader import dump, unresolved
from hrseg.config.protocols import Protocol
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.evaluation.results import Evaluation
from hrseg.metrics.bootstrap import bootstrap
from hrseg.models.segmenter import network_name
from hrseg.utils.constants import __version__
from hrseg.utils.files import write_bytes, write_json
from hrseg.utils.text import percent

PICTURES = 4  # maximum of pictures of the validation in the folder


def write_model_folder(
    evaluation: Evaluation, folder: Path, repository: str, licence: str, pictures: bool = False
) -> list[Path]:
    """Write model.safetensors, config.yaml, scores.json, README.md and, if asked, pictures.

    Paths of this machine are left out of the config and the scores.

    Args:
        evaluation: of a run folder, whose best checkpoint is published.
        folder: to write to; the files of an earlier call are replaced.
        repository: "USER/NAME", for the card.
        licence: identifier of the Hub, such as "apache-2.0".
        pictures: whether to copy pictures of the validation, which contain images of the data set.

    Returns:
        The files.

    Raises:
        ConfigError: the checkpoint is damaged, has no scores, or has parts that `create_model` does
            not build.
    """
    checkpoint = checkpoint_at(evaluation.folder)
    _check_scores(evaluation, checkpoint)
    model, raw = load_model(checkpoint)
    metadata = read_metadata(raw, checkpoint).to_dict()
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / FILE, model.state_dict(), metadata)
    config = _portable(evaluation.config)
    write_bytes(folder / "config.yaml", dump(config).encode())
    write_json(folder / "scores.json", evaluation.scores | {"checkpoint": FILE})
    shutil.rmtree(folder / "pictures", ignore_errors=True)
    copied = _copy_pictures(evaluation.folder, folder) if pictures else []
    parameters = sum(parameter.numel() for parameter in model.parameters())
    network = f"{network_name(metadata['architecture'])}, {parameters / 1e6:.1f} M parameters"
    front = _front_matter(evaluation, config["data"], repository, licence)
    card = _card(evaluation, config["data"], repository, licence, network, copied)
    write_bytes(folder / "README.md", f"---\n{front}\n---\n{card}".encode())
    names = (FILE, "config.yaml", "scores.json", "README.md")
    return [*(folder / name for name in names), *copied]


def _check_scores(evaluation: Evaluation, checkpoint: Path) -> None:
    """Raise ConfigError unless scores.json has the scores of the published checkpoint."""
    scored = Path(evaluation.scores.get("checkpoint") or checkpoint).name
    if scored == checkpoint.name and evaluation.scores["miou"] is not None:
        return
    fault = "no mIoU" if scored == checkpoint.name else f"the scores of {scored}"
    raise ConfigError(
        f"{evaluation.folder / 'scores.json'} has {fault}, but {checkpoint.name} is published.\n"
        "Expected: scores of the published checkpoint.\n"
        f"Fix: `hrseg fit --resume {evaluation.folder}` validates again."
    )


def _portable(config: Config) -> dict[str, Any]:
    """Return the values of a config without paths of this machine."""
    values = unresolved(config)
    data = values["data"]
    data |= {"root": f"data/{data['name']}", "cache": None, "manifest": None}
    for split in ("train_split", "val_split", "test_split"):  # the path of a list file, or a name
        data[split] = PurePath(data[split]).name
    values["runs"] = "runs"
    weights = values["model"]["weights"]
    if weights is not None and not is_remote(weights):
        values["model"]["weights"] = None
    return values


def _copy_pictures(run: Path, folder: Path) -> list[Path]:
    pictures = sorted((run / "predictions").glob("*.png"))[:PICTURES]
    if not pictures:
        raise ConfigError(
            f"{run / 'predictions'} contains no pictures of the validation.\n"
            "Expected: PNG files. Fix: leave out --pictures, or train without "
            "trainer.limit_val_batches."
        )
    target = folder / "pictures"
    target.mkdir()
    return [Path(shutil.copyfile(path, target / path.name)) for path in pictures]


_CARD = """
# {title}

Semantic segmentation into {classes} classes: {network}. Trained with
[hrseg](https://github.com/hrseg/hrseg) {version}.
{pictures}
## Use

```bash
pip install hrseg
hrseg predict photos/ --out predictions/ --checkpoint hf:{repository}
```

```python
import hrseg

prediction = hrseg.load("hf:{repository}").predict("photo.jpg")
```

## Scores

mIoU **{miou}** (95 % confidence interval {low} to {high},
bootstrap over images), pixel accuracy {accuracy}, on
{images} images of the split `{data[val_split]}`.

Protocol: {protocol}. Classes without a pixel in the truth are {absent}.

| class | IoU | accuracy |
|---|---|---|
{rows}

The confusion matrix is in `scores.json`.

## Training data

Data set `{data[name]}`, training split `{data[train_split]}`. The data set's terms of use may
restrict the use of this model; whoever published it chose the licence `{licence}`.

## Reproduce

`config.yaml` is the complete config of the training, without paths:

```bash
hrseg fit --config config.yaml data.root=/path/to/{data[name]}
hrseg validate --config config.yaml --checkpoint hf:{repository} data.root=/path/to/{data[name]}
```

## Limits

The scores are valid only for images similar to the data set. The interval covers the choice of
images, not of the random seed.
"""


def _card(
    evaluation: Evaluation,
    data: Mapping[str, Any],
    repository: str,
    licence: str,
    network: str,
    pictures: Sequence[Path],
) -> str:
    """Return the text of the model card; `data` is the section of the published config."""
    scores, absent = evaluation.scores, evaluation.scores["absent_classes"]
    interval = bootstrap(evaluation.matrices(), evaluation.class_names, absent)["miou"]
    low, high = interval or (None, None)
    return _CARD.format(
        title=repository.rpartition("/")[2],
        classes=len(evaluation.class_names),
        network=network,
        version=__version__,
        pictures="".join(f"\n![{path.name}](pictures/{path.name})\n" for path in pictures),
        repository=repository,
        miou=percent(scores["miou"]),
        low=percent(low),
        high=percent(high),
        accuracy=percent(scores["pixel_accuracy"]),
        images=len(evaluation.records),
        protocol=Protocol(**scores["protocol"]) if scores.get("protocol") else "unknown",
        absent=absent,
        rows="\n".join(
            f"| {_cell(row['name'])} | {percent(row['iou'])} | {percent(row['accuracy'])} |"
            for row in scores["classes"]
        ),
        data=data,
        licence=licence,
    )


def _front_matter(
    evaluation: Evaluation, data: Mapping[str, Any], repository: str, licence: str
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    result = EvalResult(
        task_type="image-segmentation",
        dataset_type=data["name"],
        dataset_name=data["name"],
        dataset_split=data["val_split"],
        metric_type="mean_iou",
        metric_name="mIoU",
        metric_value=evaluation.scores["miou"],
    )
    card = ModelCardData(
        license=licence,
        library_name="hrseg",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "hrnet", "hrseg"],
        model_name=repository.rpartition("/")[2],
        eval_results=[result],
    )
    return card.to_yaml()


def _cell(name: str) -> str:
    """Return a class name with Markdown characters escaped, for a cell of a table."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>()#+!|$~" else letter for letter in name)
