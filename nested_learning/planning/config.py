"""The GPUs that `dry_run=true` plans with."""

import math
from dataclasses import dataclass

from nested_learning.errors import ConfigError
from nested_learning.planning.hardware import GPUS
from nested_learning.typed import did_you_mean

# what to do about a run that needs more memory than there is
SMALLER = "more micro_batches, a smaller model.dim, data.batch_size or data.seq_len, or recompute=block"


@dataclass(kw_only=True)
class PlanConfig:
    """The assumptions of `dry_run=true`; they have no effect on training.

    `mfu` is the fraction of the GPU's peak that training is assumed to reach, `price` the dollars an hour of one GPU
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
        if self.price is not None and not 0 <= self.price < math.inf:
            raise ConfigError(f"plan.price={self.price} must be 0 or more, or null")
        if self.vocab_size is not None and self.vocab_size < 1:
            raise ConfigError(f"plan.vocab_size={self.vocab_size} must be at least 1, or null")
