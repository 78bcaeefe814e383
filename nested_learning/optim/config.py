"""The configuration of an optimizer: groups of parameters, each with a rule and a rate, and one schedule for all."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nested_learning.errors import ConfigError
from nested_learning.ops.rules import RULES
from nested_learning.optim.schedule import Extent, ScheduleConfig

# how a rule of matrices treats a parameter of more than two dimensions: as a batch of matrices, in the last two
# dimensions; or as one matrix with the first dimension as rows and all others as columns, as for a convolution
MATRICES = ("batch", "flatten")
RULE_KEYS = sorted({"matrix", *(key for rule in RULES.values() for key in rule.keys)})
# keys that a schedule cannot scale: a pair, and a count
UNSCHEDULED = ("betas", "slow_every")


class Allowed(NamedTuple):
    """The values that a key may have: the end of "must ...", and a test."""

    words: str
    holds: Callable[[Any], bool]


SIZE = Allowed("be 0 or more", lambda value: 0 <= value < math.inf)
COUNT = Allowed("be 1 or more", lambda value: value >= 1)
DECAY = Allowed("lie in [0, 1)", lambda value: 0 <= value < 1)
FRACTION = Allowed("lie in [0, 1]", lambda value: 0 <= value <= 1)
ALLOWED: dict[str, Allowed] = {
    **dict.fromkeys(
        ("lr", "weight_decay", "min_rank", "period", "eps", "input_decay", "memory_lr", "slow_weight", "erase"), SIZE
    ),
    **dict.fromkeys(("momentum", "beta"), DECAY),
    "retention": FRACTION,
    "slow_every": COUNT,
}


@dataclass(kw_only=True)
class GroupConfig:
    """The parameters whose name the regular expression `match` matches and that have `min_rank` dimensions or more.

    `period` is in tokens: the group updates once per period, with the mean of the gradients since its last update;
    0 is every step, and null takes the periods of the levels that the model declares. `matrix` is for the rules of
    matrices: of a parameter of more than two dimensions, `batch` takes the last two as the matrix, and `flatten` the
    first against all others. `schedules` gives a hyper-parameter a schedule of its own: any number that the rule reads,
    and `lr`, which otherwise follows the schedule of all groups.
    """

    name: str
    match: str
    rule: str
    lr: float
    weight_decay: float
    min_rank: int = 0
    period: int | None = None
    matrix: str | None = None
    betas: list[float] | None = None
    eps: float | None = None
    momentum: float | None = None
    beta: float | None = None
    erase: float | None = None
    memory_lr: float | None = None
    retention: float | None = None
    input_decay: float | None = None
    slow_weight: float | None = None
    slow_every: int | None = None
    schedules: dict[str, ScheduleConfig] = field(default_factory=dict)

    def options(self) -> dict[str, float | list[float]]:
        """Return the keys that the rule reads besides lr and weight_decay, with their values."""
        return {key: vars(self)[key] for key in RULES[self.rule].keys}

    def check(self, where: str) -> None:
        """Raise ConfigError for a value that cannot be used; `where` is the group's path, such as `optim.groups.0`."""
        if not self.name.isidentifier():
            raise ConfigError(f"{where}.name={self.name!r} must be a word of letters, digits and underscores")
        try:
            re.compile(self.match)
        except re.error as error:
            raise ConfigError(
                f"{where}.match={self.match!r} of group {self.name} is not a regular expression: {error}"
            ) from None
        for key, allowed in ALLOWED.items():
            value = vars(self)[key]
            if value is not None and not allowed.holds(value):
                raise ConfigError(f"{where}.{key}={value} of group {self.name} must {allowed.words}")
        if self.betas is not None and not (len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)):
            raise ConfigError(f"{where}.betas={self.betas} of group {self.name} must be two numbers in [0, 1)")
        self._check_rule(where)
        allowed_keys = [key for key in ("lr", "weight_decay", *RULES[self.rule].keys) if key not in UNSCHEDULED]
        for key, schedule in self.schedules.items():
            if key not in allowed_keys:
                raise ConfigError(
                    f"{where}.schedules.{key}: group {self.name} has no such number to schedule; "
                    f"allowed: {', '.join(allowed_keys)}"
                )
            schedule.check(f"{where}.schedules.{key}")

    def _check_rule(self, where: str) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"{where}.rule={self.rule!r} of group {self.name} must be one of {sorted(RULES)}")
        rule = RULES[self.rule]
        keys = (*rule.keys, "matrix") if rule.asks_for_matrix else rule.keys
        for key in RULE_KEYS:
            given, read = vars(self)[key] is not None, key in keys
            if given and not read:
                raise ConfigError(
                    f"{where}.{key}={vars(self)[key]}: rule {self.rule} of group {self.name} does not read it; "
                    f"set {where}.{key}=null"
                )
            if read and not given:
                raise ConfigError(f"{where}.{key} is missing: rule {self.rule} of group {self.name} needs it")
        if self.matrix is not None and self.matrix not in MATRICES:
            raise ConfigError(f"{where}.matrix={self.matrix} of group {self.name} must be one of {list(MATRICES)}")


@dataclass(kw_only=True)
class OptimConfig:
    """An ordered list of groups (a parameter goes to the first that matches it), a schedule, the clipping norm.

    `schedule` is that of every learning rate without one of its own. `clip` bounds the norm of all gradients together
    (null: measured, not bounded). `ema` is the decay of the running average of the weights (null: no average).
    Raises ConfigError.
    """

    name: str
    groups: list[GroupConfig]
    schedule: ScheduleConfig
    clip: float | None
    ema: float | None = None

    def __post_init__(self) -> None:
        if not self.groups:
            raise ConfigError("optim.groups is empty: every parameter must belong to a group")
        for index, group in enumerate(self.groups):
            group.check(f"optim.groups.{index}")
            if group.name in [other.name for other in self.groups[:index]]:
                raise ConfigError(f"optim.groups.{index}.name={group.name} is taken: two groups cannot share a name")
        self.schedule.check("optim.schedule")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"optim.ema={self.ema} must lie in (0, 1), such as 0.999; null averages nothing")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ConfigError(f"optim.clip={self.clip} must be more than 0, or null for no clipping")

    def check_fit(self, run: Extent) -> None:
        """Raise ConfigError for a schedule that is longer than `run`."""
        self.schedule.check_fits(run, "optim.schedule")
        for index, group in enumerate(self.groups):
            for key, schedule in group.schedules.items():
                schedule.check_fits(run, f"optim.groups.{index}.schedules.{key}")
