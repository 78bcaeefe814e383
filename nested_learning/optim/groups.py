"""Optimizer groups: a partition of the parameters that says by which rule, and how often, each is updated."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch.nn import Parameter

from nested_learning.errors import ConfigError
from nested_learning.level import Level
from nested_learning.ops.rules import RULES
from nested_learning.optim.config import GroupConfig
from nested_learning.optim.schedule import ScheduleConfig
from nested_learning.shapes import Tensor

NamedParameter = tuple[str, Parameter]


@dataclass(frozen=True)
class Group:
    """Parameters that share a rule, a learning rate, a weight decay and a clock (`period` in tokens, 0 = every step).

    `options` are the other keywords of the rule in `ops/rules`; `names` and `parameters` run in parallel. `flatten`
    says whether the rule works on a parameter flattened to two dimensions, the first against all others. `schedules`:
    those of hyper-parameters that have one of their own.
    """

    name: str
    rule: str
    lr: float
    weight_decay: float
    period: int
    options: dict[str, float | list[float]]
    names: list[str]
    parameters: list[Parameter]
    flatten: bool
    schedules: dict[str, ScheduleConfig]

    def rule_view(self, tensor: Tensor) -> Tensor:
        """Return a view of a parameter, or of a tensor of its shape, in the shape that the rule works on."""
        return tensor.flatten(1) if self.flatten else tensor


def partition(
    configs: Sequence[GroupConfig], named_parameters: Sequence[NamedParameter], levels: Sequence[Level]
) -> list[Group]:
    """Give every parameter to the first group that takes it, and split each group by the clocks of `levels`.

    The parameters of group g that a level l matches form a group of their own, `g/l`, with the period of l, unless g
    has a period itself. Raises ConfigError when a parameter has no group, a group or a level has no parameter, or a
    rule needs more dimensions than a parameter has.
    """
    members: list[list[NamedParameter]] = [[] for _ in configs]
    for name, parameter in named_parameters:
        members[_first_match(configs, name, parameter)].append((name, parameter))
    for index, (config, taken) in enumerate(zip(configs, members, strict=True)):
        if not taken:
            raise ConfigError(
                f"optim.groups.{index}.match={config.match!r}: group {config.name} takes no parameter of this model; "
                f"change the expression or delete the group"
            )
    clocks = {name: _clock(levels, name) for name, _ in named_parameters}
    for level in levels:
        if level not in clocks.values():
            raise ConfigError(
                f"level {level.name} of the model matches no parameter: its expression is {level.match!r}"
            )
    return [
        group for config, taken in zip(configs, members, strict=True) for group in _split(config, taken, clocks, levels)
    ]


def _first_match(configs: Sequence[GroupConfig], name: str, parameter: Parameter) -> int:
    for index, config in enumerate(configs):
        if parameter.dim() < config.min_rank or not re.search(config.match, name):
            continue
        if parameter.dim() < RULES[config.rule].min_rank:
            raise ConfigError(
                f"optim.groups.{index}.rule={config.rule} of group {config.name} cannot take {name} of shape "
                f"{tuple(parameter.shape)}: it needs {RULES[config.rule].min_rank} dimensions or more; "
                f"set optim.groups.{index}.min_rank={RULES[config.rule].min_rank} to leave it to a later group"
            )
        return index
    raise ConfigError(
        f"optim.groups: no group takes parameter {name} of shape {tuple(parameter.shape)}; "
        f"a last group with match='.*' takes what the others leave"
    )


def _clock(levels: Sequence[Level], name: str) -> Level | None:
    matching = [level for level in levels if re.search(level.match, name)]
    if len(matching) > 1:
        raise ConfigError(f"parameter {name} belongs to two levels of the model: {[level.name for level in matching]}")
    return matching[0] if matching else None


def _split(
    config: GroupConfig, taken: list[NamedParameter], clocks: dict[str, Level | None], levels: Sequence[Level]
) -> list[Group]:
    if config.period is not None:
        return [_group(config, config.name, config.period, taken)]
    groups = []
    for level in (None, *levels):
        members = [(name, parameter) for name, parameter in taken if clocks[name] == level]
        if members and level is None:
            groups.append(_group(config, config.name, 0, members))
        elif members and level is not None:
            groups.append(_group(config, f"{config.name}/{level.name}", level.period, members))
    return groups


def _group(config: GroupConfig, name: str, period: int, members: list[NamedParameter]) -> Group:
    names, parameters = [name for name, _ in members], [parameter for _, parameter in members]
    flatten = config.matrix == "flatten"
    options, schedules = config.options(), config.schedules
    return Group(
        name, config.rule, config.lr, config.weight_decay, period, options, names, parameters, flatten, schedules
    )
