"""A command builds one Trainer; devices, precision and processes are decided before it."""

import pytorch_lightning as pl

from hrseg.cli import main
from tests.camvid_tree import fit_overrides, make_camvid


def test_fit_and_validate_build_one_trainer_each(tmp_path, monkeypatch):
    built = []
    init = pl.Trainer.__init__

    def counted(self, *arguments, **options):
        built.append(self)
        init(self, *arguments, **options)

    monkeypatch.setattr(pl.Trainer, "__init__", counted)
    monkeypatch.chdir(tmp_path)
    root = make_camvid(tmp_path / "camvid")
    overrides = [*fit_overrides(root), "trainer.max_epochs=1", "prediction_images=0"]
    assert main(["fit", "--config", "camvid_w18_small", *overrides]) == 0
    assert len(built) == 1
    assert main(["validate"]) == 0
    assert len(built) == 2
