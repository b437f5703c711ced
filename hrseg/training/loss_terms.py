"""Loss terms of a task: a loss by name or as an object, its model output and its weight."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.losses import LOSSES
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.registry import build, find

LossFunction = Callable[[Tensor, Tensor], Tensor]
Loss = str | Mapping[str, Any] | LossFunction


class LossTerm(nn.Module):
    """Weighted loss of one output of the model.

    Args:
        spec: a name, `{"name": ..., argument: value}`, or a function or module (logits, mask) ->
            scalar, also as `{"loss": module}`. Optional keys are `on`, the name of a model output
            ("out"), and `weight` (1.0).
        model: the network, whose head names its outputs.

    Raises:
        ConfigError: an unknown loss or output, another `ignore_index` than 255, or, in a forward
            pass, a non-scalar loss.
    """

    def __init__(self, spec: Loss, model: nn.Module) -> None:
        super().__init__()
        arguments: dict[str, Any] = {"name": spec} if isinstance(spec, str) else {"loss": spec}
        if isinstance(spec, Mapping):
            arguments = dict(spec)
        self.on = str(arguments.pop("on", "out"))
        outputs = getattr(getattr(model, "head", None), "output_names", ("out",))
        find(dict.fromkeys(outputs), self.on, "output of the model")
        self.weight = float(arguments.pop("weight", 1.0))
        self.loss = arguments.pop("loss", None) or build(LOSSES, arguments, "loss")
        self.label = getattr(self.loss, "__name__", type(self.loss).__name__)
        if not callable(self.loss) or isinstance(self.loss, type):
            raise ConfigError(
                f"The loss {self.label} is not a function of (logits, mask).\n"
                f"Expected: a name ({', '.join(LOSSES)}), or a module that returns a scalar.\n"
                "Fix: losses=[torch.nn.CrossEntropyLoss(ignore_index=255)]"
            )
        if getattr(self.loss, "ignore_index", IGNORE_INDEX) != IGNORE_INDEX:
            raise ConfigError(
                f"The loss {self.label} has ignore_index={self.loss.ignore_index}.\n"
                f"Expected: {IGNORE_INDEX}, the id of ignored pixels and of padding.\n"
                f"Fix: {self.label}(ignore_index={IGNORE_INDEX})"
            )

    def forward(self, logits: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        loss: Tensor = self.loss(logits[self.on], mask)
        if loss.dim():
            raise ConfigError(
                f"The loss {self.label} returned a tensor {tuple(loss.shape)}.\n"
                'Expected: a scalar. Fix: reduction="mean"'
            )
        return self.weight * loss
