import pytest
import torch

from hrseg.models import create_model
from tests.golden_weights import image, labels


def trained(recompute, head, precision):
    """Losses, gradients and statistics of three steps."""
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
def test_losses_gradients_and_statistics_are_the_same_to_the_bit(head, precision):
    kept, again = trained(False, head, precision), trained(True, head, precision)
    assert kept[0] == again[0]
    for expected, found in zip(kept[1:], again[1:], strict=True):
        assert list(expected) == list(found)
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_less_is_kept_for_the_backward_pass():
    def kept(recompute):
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

    assert kept(True) < 0.5 * kept(False)
