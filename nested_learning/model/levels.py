"""The levels of the continuum memory, as they are configured: each has one of two clocks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from nested_learning.errors import ConfigError
from nested_learning.level import Context, Level
from nested_learning.ops.rules import RULES

# the rules that a level may learn by inside the context, with the keys of each, all of which must be given
CONTEXT_RULES = {name: rule.keys for name, rule in RULES.items() if rule.in_context}
RULE_KEYS = sorted({key for keys in CONTEXT_RULES.values() for key in keys})

SIGNALS = ("teach", "local")
GRADIENTS = ("first_order", "through")
VARIANTS = ("sequential", "independent", "nested")


@dataclass(kw_only=True)
class ContextConfig:
    """How a level learns while a context is read: by `rule` with rate `lr`, from the sum of gradients over a period.

    `weight_decay` (and the decay of dgd) draws towards the meta-learned weights. `signal`: teach, the gradient of the
    model's loss, which needs `objective=online`, or local, an objective of the level itself. `gradient`: first_order
    (writes are constants to the outer gradient) or through (it flows through them). The other keys belong to rules.
    """

    rule: str
    lr: float
    weight_decay: float = 0.0
    signal: str = "teach"
    gradient: str = "first_order"
    momentum: float | None = None
    betas: list[float] | None = None
    eps: float | None = None
    input_decay: float | None = None

    def build(self, period: int) -> Context:
        """Return the clock of a level of `period` tokens."""
        options = tuple((key, vars(self)[key]) for key in CONTEXT_RULES[self.rule])
        is_through = self.gradient == "through"
        return Context(period, self.rule, self.lr, self.weight_decay, options, self.signal, is_through)

    def check(self, where: str) -> None:
        """Raise ConfigError for a value that cannot be used; `where` is its path in messages."""
        for key, allowed in (("rule", tuple(CONTEXT_RULES)), ("signal", SIGNALS), ("gradient", GRADIENTS)):
            if vars(self)[key] not in allowed:
                raise ConfigError(f"{where}: {key}={vars(self)[key]} must be one of {', '.join(allowed)}")
        for key in ("lr", "weight_decay", "eps", "input_decay"):
            if vars(self)[key] is not None and not 0 <= vars(self)[key] < math.inf:
                raise ConfigError(f"{where}: {key}={vars(self)[key]} must be 0 or more")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ConfigError(f"{where}: momentum={self.momentum} must lie in [0, 1)")
        if self.betas is not None and not (len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)):
            raise ConfigError(f"{where}: betas={self.betas} must be two numbers in [0, 1)")
        for key in RULE_KEYS:
            if (vars(self)[key] is not None) != (key in CONTEXT_RULES[self.rule]):
                needed = "needs" if key in CONTEXT_RULES[self.rule] else "does not read"
                keys = ", ".join(CONTEXT_RULES[self.rule]) or "no keys of its own"
                raise ConfigError(f"{where}: rule {self.rule} {needed} {key}; it reads {keys}")
        if self.signal == "local" and self.gradient == "first_order":
            raise ConfigError(f"{where}: signal=local learns its targets through the writes; use gradient: through")


@dataclass(kw_only=True)
class LevelConfig:
    """One level of the continuum memory: its name, its period in tokens, and its clock.

    `context: null` is the outer clock: the optimizer updates the level once per period; 0: every step. With a `context`
    block every row of a batch has its own change of the level's weights, updated once per period while it is read; the
    weights it starts from are trained every step.
    """

    name: str
    period: int
    context: ContextConfig | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(f"model.levels: name={self.name!r} must be a word of letters, digits and underscores")
        if self.period < 0:
            raise ConfigError(f"model.levels: period={self.period} of level {self.name} must be 0 or more tokens")
        if self.context is not None:
            self.context.check(f"model.levels: context of level {self.name}")
            if self.period == 0:
                raise ConfigError(f"model.levels: period=0 of level {self.name}: a level with a context needs a period")

    @property
    def is_taught(self) -> bool:
        """Say whether the level learns from the model's loss inside the context."""
        return self.context is not None and self.context.signal == "teach"

    @property
    def is_taught_through(self) -> bool:
        """Say whether the outer gradient flows through these writes."""
        return self.is_taught and self.context is not None and self.context.gradient == "through"

    def build(self) -> Level:
        """Return the level, with an expression that matches its parameters in the model."""
        match = rf"\.cms\.levels\.{self.name}\."
        if self.context is None:
            return Level(self.name, self.period, match)
        return Level(self.name, 0, match, self.context.build(self.period))


def check_levels(variant: str, levels: Sequence[LevelConfig]) -> None:
    """Raise ConfigError unless `levels` can be connected as `variant`, the word `model.cms`."""
    if variant not in VARIANTS:
        raise ConfigError(f"model.cms={variant}: no such variant; allowed: {', '.join(VARIANTS)}")
    names = [level.name for level in levels]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"model.levels={names} must be one or more levels with different names")
    if variant != "nested":
        return
    fast = [level for level in levels if level.context is not None]
    if fast != list(levels[: len(fast)]):
        raise ConfigError(
            f"model.cms=nested: model.levels={names} must go from fast to slow: levels with a context first"
        )
    for quick, slow in pairwise(fast):
        if slow.period % quick.period or slow.period == quick.period:
            raise ConfigError(
                f"model.cms=nested: period={slow.period} of level {slow.name} must be a multiple of that of "
                f"{quick.name}, {quick.period}; try period: {max(2, slow.period // quick.period) * quick.period}"
            )
