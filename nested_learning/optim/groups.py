"""Optimizer groups: which parameter is updated by which rule and how often; a partition of the model, checked."""

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
    says whether the rule sees a parameter as its first dimension against all others. `schedules`: the course that a
    hyper-parameter takes over the run, where it has one of its own.
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

    def seen(self, tensor: Tensor) -> Tensor:
        """Return a parameter, or what has its shape, as the rule sees it; both share their memory."""
        return tensor.flatten(1) if self.flatten else tensor


def partition(
    configs: Sequence[GroupConfig], named_parameters: Sequence[NamedParameter], levels: Sequence[Level]
) -> list[Group]:
    """Give every parameter to the first group that takes it, and split each group by the clocks of `levels`.

    The parameters of group g that a level l matches form a group of their own, `g/l`, with the period of l, unless g
    has a period itself. Raises ConfigError when a parameter, a group or a level is left over, or a rule cannot take a
    parameter's rank. Source: ours.
    """
    members: list[list[NamedParameter]] = [[] for _ in configs]
    for name, parameter in named_parameters:
        members[_first_match(configs, name, parameter)].append((name, parameter))
    for index, (config, found) in enumerate(zip(configs, members, strict=True)):
        if not found:
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
        group for config, found in zip(configs, members, strict=True) for group in _split(config, found, clocks, levels)
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
    found = [level for level in levels if re.search(level.match, name)]
    if len(found) > 1:
        raise ConfigError(f"parameter {name} belongs to two levels of the model: {[level.name for level in found]}")
    return found[0] if found else None


def _split(
    config: GroupConfig, found: list[NamedParameter], clocks: dict[str, Level | None], levels: Sequence[Level]
) -> list[Group]:
    if config.period is not None:
        return [_group(config, config.name, config.period, found)]
    groups = []
    for level in (None, *levels):
        members = [(name, parameter) for name, parameter in found if clocks[name] == level]
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
