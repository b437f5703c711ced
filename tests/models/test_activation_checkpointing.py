import pytest
import torch

from hrseg.models import create_model
from tests.golden_weights import image, labels


def trained(recompute, head, precision):
    """Return losses, gradients and state dict after three steps."""
    torch.manual_seed(0)
    model = create_model("hrnet_w18_small_v1", head=head, bn_momentum=0.1).train()
    model.backbone.recompute = recompute
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    losses = []
    for step in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(image(f"train{step}", 64, 96, batch=2))
        loss = torch.nn.functional.cross_entropy(logits, labels(step), ignore_index=255)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, model.state_dict()


@pytest.mark.parametrize("head", ["fcn", "ocr"])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_losses_gradients_and_statistics_are_bitwise_equal(head, precision):
    plain, checkpointed = trained(False, head, precision), trained(True, head, precision)
    assert plain[0] == checkpointed[0]
    for expected, tensors in zip(plain[1:], checkpointed[1:], strict=True):
        assert list(expected) == list(tensors)
        assert [name for name in expected if not torch.equal(expected[name], tensors[name])] == []


def test_fewer_activations_are_saved_for_the_backward_pass():
    def saved_values(recompute):
        model = create_model("hrnet_w18_small_v1").train()
        model.backbone.recompute = recompute
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(torch.randn(1, 3, 64, 96))
        return total

    assert saved_values(True) < 0.5 * saved_values(False)
