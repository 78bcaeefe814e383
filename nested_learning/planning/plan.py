"""What a run is planned for: which GPUs, how many, what share of them it is assumed to use, what they cost."""

from dataclasses import dataclass
from typing import NamedTuple

from nested_learning.errors import ConfigError
from nested_learning.typed import did_you_mean


class GPU(NamedTuple):
    """A GPU by the name that `peaks.py` knows it by, its memory in bytes, and its price in US dollars an hour."""

    name: str
    memory_bytes: float
    dollars_per_hour: float


# prices are what renting one by the hour costs about, in 2026: an assumption, which plan.price replaces
GPUS = {
    "b200": GPU("B200", 180e9, 5.0),
    "h200": GPU("H200", 141e9, 3.5),
    "h100": GPU("H100", 80e9, 2.5),
    "a100": GPU("A100", 80e9, 1.5),
    "l40s": GPU("L40S", 48e9, 1.0),
    "l4": GPU("L4", 24e9, 0.7),
    "4090": GPU("4090", 24e9, 0.5),
    "mi300x": GPU("MI300X", 192e9, 3.0),
}


@dataclass(kw_only=True)
class PlanConfig:
    """What `dry_run=true` plans with; nothing of it has any effect on training.

    `mfu` is the share of the GPU's peak that training is assumed to reach, `price` the dollars an hour of one GPU
    (null: the table's), `vocab_size` the vocabulary to plan with where the data is not prepared yet (null: that is an
    error).
    """

    gpu: str
    num_gpus: int
    mfu: float
    price: float | None
    vocab_size: int | None

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise ConfigError(
                f"plan.gpu={self.gpu}: no such GPU; {did_you_mean(self.gpu, list(GPUS))}allowed: {', '.join(GPUS)}"
            )
        if self.num_gpus < 1:
            raise ConfigError(f"plan.num_gpus={self.num_gpus} must be at least 1; for example plan.num_gpus=8")
        if not 0 < self.mfu <= 1:
            raise ConfigError(f"plan.mfu={self.mfu} must lie in (0, 1]; for example plan.mfu=0.4")
        if self.price is not None and self.price < 0:
            raise ConfigError(f"plan.price={self.price} must be 0 or more, or null")
        if self.vocab_size is not None and self.vocab_size < 1:
            raise ConfigError(f"plan.vocab_size={self.vocab_size} must be at least 1, or null")
