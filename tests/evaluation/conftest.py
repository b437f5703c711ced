import pytest

from hrseg.cli import main


@pytest.fixture(scope="package")
def runs(tmp_path_factory):
    """Two runs on the synthetic data set, of one and of two epochs."""
    home = tmp_path_factory.mktemp("runs")
    arguments = [f"data.root={home / 'scenes'}", f"runs={home / 'runs'}", "data.num_train=4"]
    arguments += ["data.num_val=3", "data.batch_size=2", "data.workers=0", "trainer.precision=32"]
    arguments += ["inference.scales=[1.0]", "inference.flip=false"]
    for epochs in (1, 2):
        more = [f"trainer.max_epochs={epochs}", f"name=run{epochs}"]
        assert main(["fit", "--config", "synthetic_tiny", *arguments, *more]) == 0
    return [(home / "runs" / f"run{epochs}" / "latest").resolve() for epochs in (1, 2)]
