import pytest
import torch

from hrseg.errors import ConfigError
from hrseg.models import create_model
from hrseg.models import optimize as compiled
from hrseg.models.optimize import (
    check_compiler,
    compiled_for_inference,
    compiled_for_training,
    fold,
)
from hrseg.training.task import SegmentationTask
from tests.conftest import noise, silent_trainer

needs_compiler = pytest.mark.skipif(
    not any(compiled.shutil.which(name) for name in ("g++", "clang++")), reason="no C++ compiler"
)


def model():
    torch.manual_seed(0)
    return create_model("hrnet_w18_small_v1", num_classes=3).to(memory_format=torch.channels_last)


def test_a_missing_compiler_is_an_error_before_training(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler"):
        SegmentationTask(model(), ["a", "b", "c"], compile=True)


def test_compilation_with_activation_checkpointing_is_refused():
    network = model()
    network.backbone.recompute = True
    with pytest.raises(ConfigError, match="cannot be combined"):
        check_compiler(network)


@needs_compiler
def test_fit_compiles_the_network_once_and_its_evaluations_do_not(tmp_path, monkeypatch):
    compilations = []
    for name, file in (("training", "task"), ("inference", "evaluation_steps")):
        record = lambda network, name=name: compilations.append(name) or network.outputs  # noqa: E731
        monkeypatch.setattr(f"hrseg.training.{file}.compiled_for_{name}", record)
    loader = torch.utils.data.DataLoader(noise(2), batch_size=1)
    task = SegmentationTask(model(), ["a", "b", "c"], compile=True)
    trainer = silent_trainer(tmp_path, max_epochs=2)
    trainer.fit(task, loader, loader)
    assert compilations == ["training"]
    trainer.validate(task, loader, verbose=False)
    assert compilations == ["training", "inference"]


@needs_compiler
@pytest.mark.slow
def test_compiled_training_has_the_losses_of_eager_training():
    x, y = torch.randn(2, 3, 64, 96), torch.randint(0, 3, (2, 16, 24))
    losses = []
    for make in (lambda network: network.outputs, compiled_for_training):
        network = model().train()
        outputs, optimizer = make(network), torch.optim.SGD(network.parameters(), 0.01)
        for _ in range(3):
            loss = torch.nn.functional.cross_entropy(outputs(x)["out"], y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-4)


@needs_compiler
@pytest.mark.slow
def test_compiled_inference_has_the_logits_of_eager_inference():
    network = fold(model().eval())
    outputs = compiled_for_inference(network)
    with torch.inference_mode():
        for size in ((64, 96), (97, 131)):
            x = torch.randn(1, 3, *size)
            expected = network.outputs(x)["out"]
            assert (outputs(x)["out"] - expected).abs().max() <= 1e-4 * expected.abs().max()
