"""The inputs of linear layers, for the rules that read them: taken by hooks, kept as one matrix per layer."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from nested_learning.errors import ConfigError
from nested_learning.nn.full_precision import full_precision
from nested_learning.optim.processes import Processes
from nested_learning.shapes import Float, Tensor


class Inputs:
    """The mean of `xᵀ x` over the inputs x that a layer has read since `clear`, over all processes and micro-batches.

    `fresh` is what this process has seen since the last `agree`, `sum` what all have seen until then. A layer of width
    i keeps `[i, i]` numbers, however many inputs there are.
    """

    def __init__(self, weight: Float[Tensor, "... i"]) -> None:
        width = weight.shape[-1]
        # the last number counts the inputs, so that processes agree in one message
        self.fresh = torch.zeros(width * width + 1, dtype=weight.dtype, device=weight.device)
        self.sum = torch.zeros_like(self.fresh)
        self.width = width

    @torch.no_grad()
    def add(self, x: Float[Tensor, "... i"]) -> None:
        """Take more inputs in."""
        with full_precision(x.device):
            rows = x.flatten(0, -2).to(self.fresh.dtype)
            self.fresh[:-1] += (rows.mT @ rows).flatten()
            self.fresh[-1] += len(rows)

    def agree(self, processes: Processes) -> None:
        """Add what every process has seen in this step."""
        self.sum += processes.total(self.fresh)
        self.fresh.zero_()

    def mean(self) -> Float[Tensor, "i i"]:
        """Return the mean of `xᵀ x`; not a number where the layer has read nothing."""
        return (self.sum[:-1] / self.sum[-1]).view(self.width, self.width)

    def clear(self) -> None:
        """Forget all inputs that were agreed on."""
        self.sum.zero_()


def watch(model: nn.Module, inputs: dict[str, Inputs]) -> None:
    """Hook every linear layer of `model` whose weight is named in `inputs`, so that it shows what it reads.

    A layer shows its inputs where gradients are recorded: in training, not in validation. Raises ConfigError for a
    weight that is not a linear layer's. Source: ours.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    layers = {f"{name}.weight".removeprefix("."): module for name, module in linear.items()}
    _refuse(sorted(inputs.keys() - layers.keys()))
    for name, seen in inputs.items():
        layers[name].register_forward_pre_hook(partial(_show, seen))


def _show(seen: Inputs, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
    if torch.is_grad_enabled():
        seen.add(arguments[0])


def _refuse(names: Iterable[str]) -> None:
    for name in names:
        raise ConfigError(
            f"optim.groups: {name} is not the weight of a linear layer, and its rule reads a layer's inputs; "
            f"change the `match` of its group, so that a later group with another rule takes it"
        )
