"""Models whose mixer is an associative memory: one class; every paper's model is a YAML file with its settings."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from nested_learning.errors import ConfigError
from nested_learning.model.config import ModelConfig

if TYPE_CHECKING:
    from nested_learning.nn.associative import MemoryHeads
    from nested_learning.nn.language_model import LanguageModel
    from nested_learning.ops.gates import GateKinds
    from nested_learning.ops.memory import Design

AnyHeads = TypeVar("AnyHeads", bound="MemoryHeads")

# the rules inside a memory, and whether a write also erases what the memory returns for the key (`Design.erase`)
ERASES = {"gd": False, "dgd": True}
CHOICES = {
    "objective": ("l2", "dot"),
    "rule": tuple(ERASES),
    "gradient": ("token", "chunk"),
    "read": ("token", "chunk"),
    "rate": ("gate", "one"),
    "retention": ("gate", "fixed", "none"),
    "momentum": ("gate", "none"),
}


@dataclass(kw_only=True)
class MemoryDesignConfig:
    """The keys of `model.memory`: how the memories of a layer learn while they read.

    `depth`: layers of a memory, 1 is a matrix; `expansion`: width of the hidden layers, in head widths; `norm`: whether
    the output is normalised before the memory's input is added (TTT). `objective`, `rule`, `gradient`, `read` and
    `chunk`: see `ops/memory.py:Design`; `rate`, `retention`, `momentum` and `max_rate`: see `ops/gates.py:GateKinds`.
    Raises ConfigError.
    """

    depth: int
    expansion: float
    norm: bool
    objective: str
    rule: str
    gradient: str
    read: str
    rate: str
    max_rate: float
    retention: str
    momentum: str
    chunk: int

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            if vars(self)[key] not in allowed:
                raise ConfigError(f"model.memory.{key}={vars(self)[key]!r} must be one of {', '.join(allowed)}")
        for key in ("depth", "chunk"):
            if vars(self)[key] < 1:
                raise ConfigError(f"model.memory.{key}={vars(self)[key]} must be at least 1")
        if not (0 < self.max_rate < math.inf and 0 < self.expansion < 2**31):
            raise ConfigError(
                f"model.memory.max_rate={self.max_rate} and model.memory.expansion={self.expansion} must be above 0"
            )
        if self.gradient == "token" and (self.depth > 1 or self.norm):
            raise ConfigError(
                f"model.memory.gradient=token needs a matrix (depth=1, norm=false), not depth={self.depth}, "
                f"norm={str(self.norm).lower()}; use model.memory.gradient=chunk and a lower rate, such as "
                "model.memory.max_rate=0.1 (model=titans_deep is that)"
            )

    def refuse_divergence(self, chunk: int, *, makes_values: bool = False) -> None:
        """Raise ConfigError for rates at which a matrix need not stay finite; `chunk`: the tokens of its chunks.

        With keys of length 1, and each write reading the state `n` times, a token multiplies what the matrix holds for
        its key by `1 - n rate`, and with gradient=chunk a chunk of equal keys by `1 - n rate chunk`: it grows where
        that is below -1. Momentum adds steps that go the same way, and a memory that makes its own values
        (`makes_values`) grows with them: where every token has the whole rate, these need half of it. The half is
        measured, not derived.
        """
        num_reads = (self.objective == "l2") + ERASES[self.rule]
        if self.depth > 1 or self.norm or not num_reads:
            return
        sum_of_rates = 1.0 if self.rate == "one" and (self.momentum == "gate" or makes_values) else 2.0
        num_keys = chunk if self.gradient == "chunk" else 1
        largest = sum_of_rates / (num_reads * num_keys)
        if self.max_rate > largest:
            raise ConfigError(
                f"model.memory.max_rate={self.max_rate}: the memory can grow without end, with {num_reads} reads for "
                f"each write, momentum={self.momentum}, rate={self.rate}, gradient={self.gradient} and "
                f"{num_keys} tokens at once; use at most model.memory.max_rate={largest:.3g}"
            )

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        return {"expansion": "model.memory.depth=1 has no hidden layer"} if self.depth == 1 else {}

    def design(self, chunk: int) -> "Design":
        """Return how a memory with this many tokens in a chunk learns."""
        from nested_learning.ops.memory import Design

        residual = self.depth > 1 or self.norm
        return Design(self.objective, ERASES[self.rule], self.gradient, self.read, residual, self.norm, chunk)

    def kinds(self) -> "GateKinds":
        """Return which gates are functions of the token."""
        from nested_learning.ops.gates import GateKinds

        return GateKinds(self.rate, self.retention, self.momentum, self.max_rate)


@dataclass(kw_only=True)
class MemoryModelConfig(ModelConfig):
    """The keys of models that write a memory while they read; `conv_width`: tokens that a short convolution sees."""

    conv_width: int
    memory: MemoryDesignConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.conv_width < 1:
            raise ConfigError(f"model.conv_width={self.conv_width} must be at least 1 token")

    def refuse_divergence(self) -> None:
        """Raise ConfigError for settings at which the numbers of the memory need not stay finite."""
        self.memory.refuse_divergence(self.memory.chunk)

    @property
    def span(self) -> int:
        """Return the number of tokens after which the computation on a row repeats."""
        return math.lcm(super().span, self.memory.chunk)

    @property
    def hidden_dim(self) -> int:
        """Return the width of the hidden layers of a deep memory."""
        return max(1, round(self.memory.expansion * self.dim / self.num_heads))


@dataclass(kw_only=True)
class AssociativeConfig(MemoryModelConfig):
    """Layers of an associative memory and an MLP: linear attention, RetNet, DeltaNet, TTT, Titans (LMM).

    `start`: memories start at "zero", or at "learned" weights; "base": at zero, added to learned weights that retention
    does not decay.
    """

    start: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in ("zero", "learned", "base"):
            raise ConfigError(f"model.start={self.start!r} must be one of zero, learned, base")
        if self.start == "zero" and (self.memory.depth > 1 or self.memory.norm):
            raise ConfigError("model.start=zero: a deep memory cannot learn from zero; use model.start=base")

    def build(self, vocab_size: int, seed: int) -> "LanguageModel":
        """Build the model with the initial weights of `seed`."""
        from nested_learning.nn.associative import AssociativeMemory

        return self.assemble(lambda: self.make_memory(AssociativeMemory), vocab_size, seed)

    def make_memory(self, kind: "type[AnyHeads]") -> "AnyHeads":
        """Return a memory of this design: a layer, or its heads alone."""
        memory = self.memory
        return kind(
            self.dim,
            self.num_heads,
            self.conv_width,
            memory.design(memory.chunk),
            memory.kinds(),
            memory.depth,
            self.hidden_dim,
            self.start,
        )
