"""How a trained model is read: what its memories do meanwhile, and how tokens are drawn from it."""

import math
from dataclasses import dataclass

from nested_learning.errors import ConfigError

POLICIES = ("online", "frozen", "memorize")
METRICS = ("l2", "loss", "entropy")
RESETS = ("per_example", "carry")
# the memories of mixers, whichever model they are of; other levels have the names that model.levels gives them
TITAN, ALL = "titan", "all"


@dataclass(kw_only=True)
class MemoryConfig:
    """The memory policy: `online`, the architecture's own writes while it reads; `frozen`, no writes (an ablation)."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise ConfigError(f"memory={self.name}: the memory policies are {', '.join(POLICIES)}; use memory=online")

    @property
    def write(self) -> bool:
        """Say whether memories are written while text is read."""
        return self.name != "frozen"

    @property
    def carries(self) -> bool:
        """Say whether what is memorised for one example is there for the next."""
        return False

    def refuse_memorize(self, phase: str) -> None:
        """Raise ConfigError where there is something to study in a `phase` that knows of nothing that may be."""
        if self.name == "memorize":
            raise ConfigError(
                f"memory=memorize is for phase=eval, whose packs know what may be studied; with phase={phase} "
                "use memory=online"
            )


@dataclass(kw_only=True)
class MemorizeConfig(MemoryConfig):
    """`memorize`: as `online`, and before it answers the model studies what it may, writing on `levels` of `layers`.

    `steps`: how often a context is read; `chunk`: the tokens that are read between two writes. Each write is multiplied
    by `lr`: 1 is what the level learned to do, 0 leaves it as it is, and a level that has no clock inside the context
    takes steps of `lr` down the gradient of the mean loss. Where `surprise_threshold` is given, what a row has read is
    written only if it surprised as much, in units of `surprise_metric`: l2, the norm of the gradient of a token's loss
    at the model's last output, by the root of its width, a mean over tokens; loss or entropy, in nats a token.
    `levels`: titan (the memories of mixers), names of `model.levels`, or all; `layers`: their numbers, null for all;
    `reset`: per_example, each example begins with the memory as it was trained, or carry.
    """

    steps: int
    lr: float
    chunk: int
    surprise_threshold: float | None
    surprise_metric: str
    levels: list[str]
    layers: list[int] | None
    reset: str

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("steps", "chunk"):
            if vars(self)[key] < 1:
                raise ConfigError(f"memory.{key}={vars(self)[key]} must be at least 1, e.g. memory.{key}=1")
        if not 0 <= self.lr < math.inf:
            raise ConfigError(f"memory.lr={self.lr} must be 0 or more, e.g. memory.lr=1, what each level learned")
        if self.surprise_threshold is not None and not self.surprise_threshold >= 0:
            raise ConfigError(
                f"memory.surprise_threshold={self.surprise_threshold} must be 0 or more, or null, which writes always"
            )
        for key, allowed in (("surprise_metric", METRICS), ("reset", RESETS)):
            if vars(self)[key] not in allowed:
                raise ConfigError(f"memory.{key}={vars(self)[key]} must be one of {', '.join(allowed)}")
        if not self.levels:
            raise ConfigError("memory.levels=[]: nothing would be written; use memory.levels=[all] or memory=online")

    @property
    def carries(self) -> bool:
        """Say whether what is memorised for one example is there for the next."""
        return self.reset == "carry"

    @property
    def writes(self) -> bool:
        """Say whether there is anything that study would write."""
        return self.lr > 0 and self.surprise_threshold != math.inf


@dataclass(kw_only=True)
class SamplingConfig:
    """How tokens are drawn: how many; `temperature` 0 = the likeliest; `top_k` 0 and `top_p` 1 = among all tokens."""

    num_tokens: int
    temperature: float
    top_k: int
    top_p: float

    def __post_init__(self) -> None:
        for name in ("num_tokens", "temperature", "top_k"):
            if vars(self)[name] < 0:
                raise ConfigError(f"sampling.{name}={vars(self)[name]}: must be 0 or more, e.g. sampling.{name}=0")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"sampling.top_p={self.top_p}: must be above 0 and at most 1, e.g. sampling.top_p=0.9")
