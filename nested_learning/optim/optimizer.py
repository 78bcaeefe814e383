"""The optimizer: every group follows its rule, at its own clock and learning rate."""

from collections.abc import Sequence
from typing import Any

import torch

from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.level import is_due
from nested_learning.ops.rules import RULES
from nested_learning.optim.groups import Group
from nested_learning.optim.schedule import ScheduleConfig, lr_factor
from nested_learning.optim.updates import update
from nested_learning.shapes import Tensor


class Accumulated:
    """The sum of the gradients that a slow parameter has had since its last update, and their number."""

    def __init__(self, parameter: Tensor) -> None:
        self.sum = torch.zeros_like(parameter)
        self.count = 0

    def add(self, gradient: Tensor) -> None:
        """Take one more gradient in."""
        self.sum += gradient
        self.count += 1

    def clear(self) -> None:
        """Forget all gradients."""
        self.sum.zero_()
        self.count = 0


class Optimizer:
    """Updates the parameters of `groups` in place from their gradients, which the caller has averaged and clipped.

    A group with a period longer than a step adds its gradients up and updates once a period, with their mean; the
    other groups update at every step. A parameter without a gradient (`.grad` is None) is left alone. The clocks and
    the learning rates are pure functions of the step. Source: the outer clock of Nested Learning, arXiv 2512.24695,
    equation 71.
    """

    def __init__(
        self, groups: Sequence[Group], schedule: ScheduleConfig, tokens_per_step: int, total_steps: int
    ) -> None:
        if total_steps < 1:
            raise ConfigError(f"steps={total_steps} must be at least 1")
        assert tokens_per_step > 0, f"a step of {tokens_per_step} tokens"
        self.groups = list(groups)
        self.schedule, self.tokens_per_step, self.total_steps = schedule, tokens_per_step, total_steps
        self.states: dict[str, Any] = {}
        self.accumulated: dict[str, Accumulated] = {}
        for group in self.groups:
            for name, parameter in zip(group.names, group.parameters, strict=True):
                assert name not in self.states, f"parameter {name} is in two groups"
                self.states[name] = RULES[group.rule].init(parameter.detach())
                if group.period > tokens_per_step:
                    self.accumulated[name] = Accumulated(parameter.detach())

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Make step `step` (0, 1, ...): read every `.grad`, and update the groups that are due."""
        lr = self.lr(step)
        tokens_before, tokens_after = step * self.tokens_per_step, (step + 1) * self.tokens_per_step
        for group in self.groups:
            if group.period > self.tokens_per_step:
                self._accumulate(group)
            if is_due(group.period, tokens_before, tokens_after):
                self._update(group, lr[group.name])

    def zero_grad(self) -> None:
        """Drop every gradient."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def lr(self, step: int) -> dict[str, float]:
        """Return the learning rate of every group at `step`, by the group's name."""
        factor = lr_factor(self.schedule, step, self.total_steps)
        return {group.name: group.lr * factor for group in self.groups}

    def table(self) -> list[tuple[str, str, float, float, int, int, int]]:
        """List of every group: name, rule, lr, weight decay, period, tensors, parameters (which sum to the model)."""
        return [
            (
                group.name,
                group.rule,
                group.lr,
                group.weight_decay,
                group.period,
                len(group.parameters),
                sum(parameter.numel() for parameter in group.parameters),
            )
            for group in self.groups
        ]

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that the next steps depend on, keyed `<parameter name>/<slot>`; numbers are 0-d tensors."""
        slots: dict[str, Any] = {}
        for name, state in self.states.items():
            slots |= {f"{name}/{slot}": value for slot, value in state._asdict().items()}
        for name, accumulated in self.accumulated.items():
            slots |= {f"{name}/gradient_sum": accumulated.sum, f"{name}/gradient_count": accumulated.count}
        return {key: value if isinstance(value, Tensor) else torch.tensor(value) for key, value in slots.items()}

    @torch.no_grad()
    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned.

        Raises CheckpointError, changing nothing, unless names, shapes and dtypes agree.
        """
        _check_same(self.state_dict(), tensors)
        for name, state in self.states.items():
            loaded = {slot: _load(value, tensors[f"{name}/{slot}"]) for slot, value in state._asdict().items()}
            self.states[name] = state._replace(**loaded)
        for name, accumulated in self.accumulated.items():
            accumulated.sum.copy_(tensors[f"{name}/gradient_sum"])
            accumulated.count = int(tensors[f"{name}/gradient_count"])

    def _accumulate(self, group: Group) -> None:
        for name, parameter in zip(group.names, group.parameters, strict=True):
            if parameter.grad is not None:
                self.accumulated[name].add(parameter.grad)

    def _update(self, group: Group, lr: float) -> None:
        gradients = self._gradients(group)
        if not gradients:
            return
        parameters = dict(zip(group.names, group.parameters, strict=True))
        new_states = update(
            group.rule,
            [parameters[name] for name in gradients],
            list(gradients.values()),
            [self.states[name] for name in gradients],
            lr=lr,
            weight_decay=group.weight_decay,
            **group.options,
        )
        self.states |= dict(zip(gradients, new_states, strict=True))
        for name in gradients:
            if name in self.accumulated:
                self.accumulated[name].clear()

    def _gradients(self, group: Group) -> dict[str, Tensor]:
        """Return what the group's parameters follow now: their gradients, or the means of those they gathered."""
        if group.period > self.tokens_per_step:
            found = {name: self.accumulated[name] for name in group.names}
            return {name: gathered.sum / gathered.count for name, gathered in found.items() if gathered.count}
        pairs = zip(group.names, group.parameters, strict=True)
        return {name: parameter.grad for name, parameter in pairs if parameter.grad is not None}


def _load(value: Tensor | int, tensor: Tensor) -> Tensor | int:
    return value.copy_(tensor) if isinstance(value, Tensor) else int(tensor)


def _check_same(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise CheckpointError(f"optimizer state lacks {_some(missing)}: it was made for other groups, rules or periods")
    if unexpected := sorted(found.keys() - expected.keys()):
        raise CheckpointError(
            f"optimizer state has {_some(unexpected)} too much: it was made for other groups, rules or periods"
        )
    for key, tensor in expected.items():
        if (tensor.shape, tensor.dtype) != (found[key].shape, found[key].dtype):
            raise CheckpointError(
                f"optimizer state {key} is {found[key].dtype} of shape {tuple(found[key].shape)}, "
                f"not {tensor.dtype} of shape {tuple(tensor.shape)}"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
