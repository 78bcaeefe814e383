"""The optimizer: each group of parameters has its own update rule, period and learning rate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nested_learning import tree
from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.level import TokensBefore, is_due
from nested_learning.ops.rules import RULES
from nested_learning.ops.rules.functions import FUNCTIONS
from nested_learning.optim.average import EMA, Average
from nested_learning.optim.groups import Group
from nested_learning.optim.inputs import InputSum, record_inputs
from nested_learning.optim.processes import ALONE, Processes
from nested_learning.optim.schedule import Extent, ScheduleConfig, factor
from nested_learning.optim.updates import update
from nested_learning.shapes import Tensor


class GradientSum:
    """The sum of a slow parameter's gradients since its last update, and their number."""

    def __init__(self, parameter: Tensor) -> None:
        self.sum = torch.zeros_like(parameter)
        self.count = 0

    def add(self, gradient: Tensor) -> None:
        """Add a gradient."""
        self.sum += gradient
        self.count += 1

    def clear(self) -> None:
        """Reset the sum."""
        self.sum.zero_()
        self.count = 0


class Optimizer:
    """Updates the parameters of `groups` in place, from gradients that the caller has averaged and clipped.

    A group with a period longer than a step sums its gradients and updates once in a period, with their mean; the other
    groups update at every step. A parameter without a gradient (`.grad` is None) is not changed. Clocks and
    hyper-parameters are pure functions of the step: learning rates follow `schedule` unless the group has its own. With
    `ema` a running average of the weights is kept as well. Parameters may be sharded among `processes`: a rule that
    needs whole matrices gets them gathered, one at a time, and each process keeps its part of the result. Source:
    Nested Learning, arXiv 2512.24695, equation 71 (the outer clock).
    """

    def __init__(
        self,
        groups: Sequence[Group],
        schedule: ScheduleConfig,
        tokens_per_step: int,
        total_steps: int,
        processes: Processes = ALONE,
        tokens_before: TokensBefore | None = None,
        ema: float | None = None,
    ) -> None:
        if total_steps < 1:
            raise ConfigError(f"steps={total_steps} must be at least 1")
        assert tokens_per_step > 0, f"a step of {tokens_per_step} tokens"
        self.groups = list(groups)
        self.schedule, self.tokens_per_step, self.total_steps = schedule, tokens_per_step, total_steps
        self.processes = processes
        self.tokens_before: TokensBefore = tokens_before or (lambda step: step * tokens_per_step)
        self.states: dict[str, Any] = {}
        self.accumulated: dict[str, GradientSum] = {}
        self.inputs: dict[str, InputSum] = {}
        for group in self.groups:
            for name, parameter in zip(group.names, group.parameters, strict=True):
                assert name not in self.states, f"parameter {name} is in two groups"
                part = group.rule_view(parameter.detach())
                # a state may have other shapes than its parameter, so it is made from the whole one and then sharded
                self.states[name] = self._shard(FUNCTIONS[group.rule].init(processes.whole(part)), part)
                if RULES[group.rule].reads_inputs:
                    self.inputs[name] = InputSum(part)
                # a period of one step or less needs no sum: the gradient of the step is all there is
                if group.period > tokens_per_step:
                    self.accumulated[name] = GradientSum(parameter.detach())
        self.average = None if ema is None else Average(ema, self._named_parameters())

    def record_inputs(self, model: nn.Module) -> None:
        """Let the layers of `model` record their inputs for the rules that read them."""
        record_inputs(model, self.inputs)

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Make step `step` (0, 1, ...): read every `.grad`, and update the groups that are due."""
        # also where no group is due: checkpoints hold the sums over all processes, not the local ones
        for inputs in self.inputs.values():
            inputs.all_reduce(self.processes)
        before, after = self.tokens_before(step), self.tokens_before(step + 1)
        for group in self.groups:
            if group.period > self.tokens_per_step:
                self._accumulate(group)
            if is_due(group.period, before, after):
                self._update(group, self.settings(group, step))
        if self.average is not None:
            self.average.update(self._named_parameters(), step)

    def zero_grad(self) -> None:
        """Set every gradient to None."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    def skip(self) -> None:
        """Skip a step: drop every gradient, and the inputs that layers recorded since the last step."""
        self.zero_grad()
        for inputs in self.inputs.values():
            inputs.local.zero_()

    def lr(self, step: int) -> dict[str, float]:
        """Return the learning rate of every group at `step`, by the group's name."""
        return {group.name: self.settings(group, step)["lr"] for group in self.groups}

    def settings(self, group: Group, step: int) -> dict[str, Any]:
        """Return the hyper-parameters of `group` at `step`: each value times the factor of its schedule, if any."""
        # the rate of a step is that of its end: the first step of a warmup then has a rate above zero
        done, run = (Extent(steps, self.tokens_before(steps)) for steps in (step + 1, self.total_steps))
        values: dict[str, Any] = {"lr": group.lr, "weight_decay": group.weight_decay, **group.options}
        schedules = {"lr": self.schedule} | group.schedules
        return values | {key: values[key] * factor(schedule, done, run) for key, schedule in schedules.items()}

    def metrics(self, step: int) -> dict[str, float]:
        """Return `optim/lr`, the largest of all groups, and `optim/<key>/<group>` for each scheduled value."""
        metrics = {"optim/lr": max(self.lr(step).values())}
        for group in self.groups:
            settings = self.settings(group, step)
            metrics |= {f"optim/{key}/{group.name}": settings[key] for key in ("lr", *group.schedules)}
        return metrics

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Replace the parameters by the averaged weights while the context lasts; requires `ema`."""
        assert self.average is not None, "no weights are averaged"
        with self.average.in_place_of(self._named_parameters()):
            yield

    def local_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of `state_dict` without gathering: of a sharded one, the part of this process."""
        slots = self._slots()
        return {key: value if isinstance(value, Tensor) else torch.tensor(value) for key, value in slots.items()}

    def table(self) -> list[tuple[str, str, float, float, int, int, int]]:
        """List for every group its name, rule, lr, weight decay, period, number of tensors and number of parameters."""
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
        """Return the state of the optimizer, keyed `<parameter name>/<slot>`; numbers are 0-d tensors.

        Sharded tensors are gathered, so that the result does not depend on the number of processes.
        """
        return {key: self.processes.whole(value) for key, value in self.local_tensors().items()}

    @torch.no_grad()
    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Load the result of `state_dict`.

        Raises CheckpointError, changing nothing, unless names, shapes and dtypes agree.
        """
        self.check(tensors)
        # in place: groups, averages and sums keep their tensors, and sharded ones take their part of the loaded ones
        for key, value in self._slots().items():
            if isinstance(value, Tensor):
                value.copy_(self.processes.shard_like(tensors[key].to(value.device), value))
        self.load_integers(tensors)

    def check(self, tensors: dict[str, Tensor]) -> None:
        """Raise CheckpointError unless `tensors` have the names, shapes and dtypes of `state_dict`."""
        _check_same(self._slots(), tensors)

    def load_integers(self, tensors: dict[str, Tensor]) -> None:
        """Load the integers of the state, which `local_tensors` and `state_dict` return as 0-d tensors."""
        for name, state in self.states.items():
            counts = {slot: value for slot, value in state._asdict().items() if not isinstance(value, Tensor)}
            self.states[name] = state._replace(**{slot: int(tensors[f"{name}/{slot}"]) for slot in counts})
        for name, accumulated in self.accumulated.items():
            accumulated.count = int(tensors[f"{name}/gradient_count"])

    def _slots(self) -> dict[str, Any]:
        """Return the state by slot: tensors, which may be sharded, and integers."""
        slots: dict[str, Any] = {}
        for name, state in self.states.items():
            slots |= {f"{name}/{slot}": value for slot, value in state._asdict().items()}
        for name, accumulated in self.accumulated.items():
            slots |= {f"{name}/gradient_sum": accumulated.sum, f"{name}/gradient_count": accumulated.count}
            if name in self.inputs:
                slots[f"{name}/input_sum"] = self.inputs[name].sum
        if self.average is not None:
            slots |= {f"{name}/{EMA}": weights for name, weights in self.average.weights.items()}
        return slots

    def _named_parameters(self) -> dict[str, Tensor]:
        return {
            name: parameter.detach()
            for group in self.groups
            for name, parameter in zip(group.names, group.parameters, strict=True)
        }

    def _accumulate(self, group: Group) -> None:
        for name, parameter in zip(group.names, group.parameters, strict=True):
            if parameter.grad is not None:
                self.accumulated[name].add(parameter.grad)

    def _update(self, group: Group, settings: dict[str, Any]) -> None:
        gradients = {name: group.rule_view(gradient) for name, gradient in self._gradients(group).items()}
        parameters = zip(group.names, group.parameters, strict=True)
        parts = {name: group.rule_view(parameter.detach()) for name, parameter in parameters if name in gradients}
        # an element-wise rule works on any shard; a rule of matrices needs whole ones, gathered one at a time to save
        # memory
        if RULES[group.rule].min_rank > 0 and any(self.processes.is_sharded(part) for part in parts.values()):
            for name in gradients:
                self._update_sharded(group, settings, name, parts[name], gradients[name])
        elif gradients:
            old = [self.states[name] for name in gradients]
            new = self._apply(group, settings, list(gradients), list(parts.values()), list(gradients.values()), old)
            self.states |= dict(zip(gradients, new, strict=True))
        # the period is over: its sums are used up, and inputs are cleared also where a parameter got no gradient
        for name in group.names:
            if name in gradients and name in self.accumulated:
                self.accumulated[name].clear()
            if name in self.inputs:
                self.inputs[name].clear()

    def _update_sharded(
        self, group: Group, settings: dict[str, Any], name: str, part: Tensor, gradient: Tensor
    ) -> None:
        """Gather one parameter, its gradient and its state; update them; keep this process's part."""
        # every process computes the same update of the whole matrix, then keeps its own shard of it
        whole = self.processes.whole
        weights, state = whole(part), tree.map(whole, self.states[name])
        (state,) = self._apply(group, settings, [name], [weights], [whole(gradient)], [state])
        part.copy_(self.processes.shard_like(weights, part))
        self.states[name] = self._shard(state, part)

    def _apply(
        self,
        group: Group,
        settings: dict[str, Any],
        names: list[str],
        weights: list[Tensor],
        gradients: list[Tensor],
        states: list[Any],
    ) -> list[Any]:
        """Update `weights` in place by the group's rule with the hyper-parameters `settings`; return the new states."""
        extra = {"grams": [self._gram(group, name) for name in names]} if RULES[group.rule].reads_inputs else {}
        return update(group.rule, weights, gradients, states, **settings, **extra)

    def _shard(self, state: Any, part: Tensor) -> Any:
        """Shard a whole state like its parameter: those of its tensors that have the parameter's shape."""
        return tree.map(lambda leaf: self.processes.shard_like(leaf, part) if leaf.shape == part.shape else leaf, state)

    def _gram(self, group: Group, name: str) -> Tensor:
        if self.inputs[name].sum[-1] == 0:
            raise ConfigError(
                f"optim.groups: rule {group.rule} of group {group.name} reads inputs, but the layer of {name} has read "
                f"none; change the `match` of the group, so that a later group with another rule takes it"
            )
        return self.inputs[name].mean()

    def _gradients(self, group: Group) -> dict[str, Tensor]:
        """Return the gradients for the update: those of this step, or the means over the period."""
        if group.period > self.tokens_per_step:
            sums = {name: self.accumulated[name] for name in group.names}
            return {name: each.sum / each.count for name, each in sums.items() if each.count}
        pairs = zip(group.names, group.parameters, strict=True)
        return {name: parameter.grad for name, parameter in pairs if parameter.grad is not None}


def _check_same(expected: dict[str, Any], loaded: dict[str, Tensor]) -> None:
    if missing := sorted(expected.keys() - loaded.keys()):
        raise CheckpointError(
            f"optimizer state lacks {_some(missing)}: it was made for other groups, rules, periods or optim.ema"
        )
    if unexpected := sorted(loaded.keys() - expected.keys()):
        raise CheckpointError(
            f"optimizer state has unexpected {_some(unexpected)}: "
            "it was made for other groups, rules, periods or optim.ema"
        )
    for key, value in expected.items():
        tensor = value if isinstance(value, Tensor) else torch.tensor(value)
        if (tensor.shape, tensor.dtype) != (loaded[key].shape, loaded[key].dtype):
            raise CheckpointError(
                f"optimizer state {key} is {loaded[key].dtype} of shape {tuple(loaded[key].shape)}, "
                f"not {tensor.dtype} of shape {tuple(tensor.shape)}"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
