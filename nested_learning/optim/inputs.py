"""The inputs of linear layers, for rules that read them: hooks record them and sum `xᵀ x` per layer."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from nested_learning.errors import ConfigError
from nested_learning.nn.full_precision import full_precision
from nested_learning.optim.processes import Processes
from nested_learning.shapes import Float, Tensor


class InputSum:
    """The sum of `xᵀ x` over the inputs x of a layer since `clear`, over all processes and micro-batches.

    `local` is the part of this process since the last `all_reduce`; `sum` is that of all processes up to it. A layer of
    input width i stores `[i, i]` numbers, however many inputs there are.
    """

    def __init__(self, weight: Float[Tensor, "... i"]) -> None:
        width = weight.shape[-1]
        # the last number counts the inputs, so that one message reduces the sum and the count
        self.local = torch.zeros(width * width + 1, dtype=weight.dtype, device=weight.device)
        self.sum = torch.zeros_like(self.local)
        self.width = width

    @torch.no_grad()
    def add(self, x: Float[Tensor, "... i"]) -> None:
        """Add inputs of this process."""
        # autocast would compute the product in half precision
        with full_precision(x.device):
            rows = x.flatten(0, -2).to(self.local.dtype)
            self.local[:-1] += (rows.mT @ rows).flatten()
            self.local[-1] += len(rows)

    def all_reduce(self, processes: Processes) -> None:
        """Add the local sums of all processes."""
        # the local part is cleared, so that a step's inputs are reduced once however long the period is
        self.sum += processes.total(self.local)
        self.local.zero_()

    def mean(self) -> Float[Tensor, "i i"]:
        """Return the mean of `xᵀ x`; NaN where the layer has read nothing."""
        return (self.sum[:-1] / self.sum[-1]).view(self.width, self.width)

    def clear(self) -> None:
        """Reset the sum over all processes."""
        self.sum.zero_()


def record_inputs(model: nn.Module, inputs: dict[str, InputSum]) -> None:
    """Hook every linear layer of `model` whose weight is named in `inputs`, so that it adds its inputs there.

    Inputs are recorded where gradients are: in training, not in validation. Raises ConfigError for a weight that is not
    a linear layer's.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    layers = {f"{name}.weight".removeprefix("."): module for name, module in linear.items()}
    _refuse(sorted(inputs.keys() - layers.keys()))
    for name, each in inputs.items():
        layers[name].register_forward_pre_hook(partial(_record, each))


def _record(inputs: InputSum, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
    # a pass without gradients is validation or generation, and adds nothing to the gradient either
    if torch.is_grad_enabled():
        inputs.add(arguments[0])


def _refuse(names: Iterable[str]) -> None:
    for name in names:
        raise ConfigError(
            f"optim.groups: {name} is not the weight of a linear layer, and its rule reads a layer's inputs; "
            f"change the `match` of its group, so that a later group with another rule takes it"
        )
