"""How a trained model is read: what its memories do meanwhile, and how tokens are drawn from it."""

from dataclasses import dataclass

from nested_learning.errors import ConfigError

POLICIES = ("online", "frozen")


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
        return self.name == "online"


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
