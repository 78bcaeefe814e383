"""Options of inference: the memory policy (`memory=`) and sampling (`sampling.*`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nested_learning.errors import ConfigError
from nested_learning.typed import Length, Unbounded, did_you_mean

POLICIES = ("online", "frozen", "memorize")
METRICS = ("l2", "loss", "entropy")
RESETS = ("per_example", "carry")
# names in memory.levels: `titan`, the memories of mixers in any model; `all`. Other levels have their names in
# model.levels
TITAN, ALL = "titan", "all"


@dataclass(kw_only=True)
class MemoryConfig:
    """The memory policy: `online`, memories write in every forward pass; `frozen`, they never write (an ablation)."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise ConfigError(f"memory={self.name}: the memory policies are {', '.join(POLICIES)}; use memory=online")

    @property
    def write(self) -> bool:
        """Say whether memories write in a forward pass."""
        return self.name != "frozen"

    @property
    def carries(self) -> bool:
        """Say whether the next example sees what was memorized for this one."""
        return False

    def refuse_memorize(self, phase: str) -> None:
        """Raise ConfigError for memory=memorize in a `phase` that has no context to memorize."""
        if self.name == "memorize":
            raise ConfigError(
                f"memory=memorize is for phase=eval, whose packs say which text is the context; with phase={phase} "
                "use memory=online"
            )


@dataclass(kw_only=True)
class MemorizeConfig(MemoryConfig):
    """`memorize`: as `online`, and the model memorizes the context before it answers.

    steps: How often a context is read.
    lr: The factor of each write. 1 is the write that a level learned in training; 0 writes nothing. A level that does
        not learn in context takes gradient steps of this size on the mean loss.
    chunk: Tokens between two writes.
    surprise_threshold: A row writes only where its surprise is at least this; null: always.
    surprise_metric: The unit of surprise, a mean over tokens. l2: the norm of the gradient of a token's loss at the
        model's last output, over the square root of its dim. loss, entropy: nats.
    levels: titan (the memories of mixers), names in `model.levels`, or all.
    layers: Numbers of layers, from 0; null: all.
    reset: per_example, every example starts from the trained memory; carry, it continues from the example before.
    """

    steps: int
    lr: float
    chunk: int
    surprise_threshold: Unbounded | None
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
            raise ConfigError(
                f"memory.lr={self.lr} must be 0 or more, e.g. memory.lr=1, the write that each level learned"
            )
        if self.surprise_threshold is not None and not self.surprise_threshold >= 0:
            raise ConfigError(
                f"memory.surprise_threshold={self.surprise_threshold} must be 0 or more, or null, which always writes"
            )
        for key, allowed in (("surprise_metric", METRICS), ("reset", RESETS)):
            if vars(self)[key] not in allowed:
                raise ConfigError(f"memory.{key}={vars(self)[key]} must be one of {', '.join(allowed)}")
        if not self.levels:
            raise ConfigError("memory.levels=[]: nothing would be written; use memory.levels=[all] or memory=online")

    def check_model(self, levels: Sequence[str], num_layers: int) -> None:
        """Raise ConfigError for names that are none of a model's `levels`, and for layers that it does not have.

        A memory of mixers, TITAN, may still be missing, which is found when the model is built.
        """
        known = [TITAN, *levels, ALL]
        for name in self.levels:
            if name not in known:
                raise ConfigError(
                    f"memory.levels={','.join(self.levels)}: this model has no level {name}; "
                    f"{did_you_mean(name, known)}allowed: {', '.join(known)}"
                )
        for layer in self.layers or []:
            if not 0 <= layer < num_layers:
                raise ConfigError(
                    f"memory.layers={self.layers}: there is no layer {layer}, they are 0 to {num_layers - 1}"
                )

    @property
    def carries(self) -> bool:
        """Say whether the next example sees what was memorized for this one."""
        return self.reset == "carry"


@dataclass(kw_only=True)
class SamplingConfig:
    """How tokens are sampled. `temperature` 0 is greedy decoding; `top_k` 0 and `top_p` 1 keep all tokens."""

    num_tokens: Length
    temperature: float
    top_k: int
    top_p: float

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        greedy = "sampling.temperature=0 always takes the likeliest token"
        return {} if self.temperature else {"top_k": greedy, "top_p": greedy}

    def __post_init__(self) -> None:
        for name in ("num_tokens", "temperature", "top_k"):
            if not 0 <= vars(self)[name] < math.inf:
                raise ConfigError(f"sampling.{name}={vars(self)[name]}: must be 0 or more, e.g. sampling.{name}=0")
        # scores are divided by it in float32
        if 0 < self.temperature < 1e-6:
            raise ConfigError(
                f"sampling.temperature={self.temperature}: must be 0 or at least 1e-6; sampling.temperature=0 takes "
                "the likeliest token"
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"sampling.top_p={self.top_p}: must be above 0 and at most 1, e.g. sampling.top_p=0.9")
