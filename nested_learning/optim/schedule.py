"""Schedules: pure functions of the progress of a run, so that there is no state to save or restore."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from nested_learning.errors import ConfigError

KINDS = ("constant", "cosine", "linear", "wsd")
UNITS = ("share", "steps", "tokens")


class Extent(NamedTuple):
    """A part of a run: a number of optimizer steps, and the tokens that they read over all processes."""

    steps: int
    tokens: int


@dataclass(kw_only=True)
class ScheduleConfig:
    """A factor on a hyper-parameter over a run: a linear warmup, then one of four kinds.

    `constant` keeps the value. `cosine` and `linear` fall from it to `final` times the value by the end of the run.
    `wsd` (warmup, stable, decay) keeps it and falls linearly to `final` times the value over the last `decay` of the
    run. A warmup rises from `start` times the value. `unit` is that of `warmup` and `decay`: `share` of the run's
    steps, which fits a run of any length, `steps`, or `tokens`.
    """

    kind: str
    final: float
    warmup: float = 0.0
    decay: float = 0.0
    start: float = 0.0
    unit: str = "share"

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        reasons = {}
        if self.kind != "wsd":
            reasons["decay"] = f"it is the length of the last part of kind=wsd, and kind={self.kind} has none"
        if self.kind == "constant":
            reasons["final"] = "kind=constant keeps the value to the end"
        if not self.warmup:
            reasons["start"] = "warmup=0, so there is no warmup"
        return reasons

    def check(self, where: str) -> None:
        """Raise ConfigError for a value that no run can use; `where` is the path, such as `optim.schedule`."""
        for key, allowed in (("kind", KINDS), ("unit", UNITS)):
            if vars(self)[key] not in allowed:
                raise ConfigError(f"{where}.{key}={vars(self)[key]!r} must be one of {list(allowed)}")
        for key in ("final", "start"):
            if not 0 <= vars(self)[key] <= 1:
                raise ConfigError(
                    f"{where}.{key}={vars(self)[key]} must lie in [0, 1]: it is a share of the value, such as "
                    f"{where}.{key}=0.1"
                )
        # only wsd reads the decay
        for key in ("warmup", "decay") if self.kind == "wsd" else ("warmup",):
            value = vars(self)[key]
            if self.unit == "share" and not 0 <= value <= 1:
                raise ConfigError(
                    f"{where}.{key}={value} must lie in [0, 1]: it is a share of the run, such as {where}.{key}=0.1; "
                    f"{where}.unit=steps counts steps"
                )
            if self.unit != "share" and not (0 <= value < math.inf and value == int(value)):
                raise ConfigError(
                    f"{where}.{key}={value} must be a whole number of {self.unit}; {where}.unit=share takes shares"
                )

    def check_fits(self, run: Extent, where: str) -> None:
        """Raise ConfigError when warmup and decay together are longer than the whole `run`."""
        used = self.warmup + (self.decay if self.kind == "wsd" else 0.0)
        whole = {"share": 1, "steps": run.steps, "tokens": run.tokens}[self.unit]
        if used > whole:
            length = "the whole run" if self.unit == "share" else f"the run's {whole} {self.unit}"
            key, most = ("decay", whole - self.warmup) if self.warmup < whole else ("warmup", whole)
            raise ConfigError(
                f"{where}.warmup={self.warmup:g} and {where}.decay={self.decay:g} exceed {length}: "
                f"try {where}.{key}={most:g}"
            )


def factor(schedule: ScheduleConfig, done: Extent, run: Extent) -> float:
    """Return the factor of a step; `done` is the part of the whole `run` that is complete after it.

    With `start: 0` the first step of a warmup over n steps has the factor 1/n, not 0, which would waste the step; the
    last has 1. The last step of a decay has `final` exactly, and so has every step beyond the run. Source: wsd is Hu
    et al., arXiv 2404.06395, section 4; cosine is Loshchilov and Hutter, arXiv 1608.03983, equation 5.
    """
    at, end = (done.tokens, run.tokens) if schedule.unit == "tokens" else (done.steps, run.steps)
    unit = end if schedule.unit == "share" else 1
    at, warmup = min(at, end), round(schedule.warmup * unit)
    # only wsd reads the decay
    begin = round(end - schedule.decay * unit) if schedule.kind == "wsd" else warmup
    if at <= warmup:
        return schedule.start + (1 - schedule.start) * at / warmup
    if schedule.kind == "constant" or at <= begin:
        return 1.0
    progress = (at - begin) / (end - begin)
    if schedule.kind == "cosine":
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2
    return (1 - progress) + progress * schedule.final
