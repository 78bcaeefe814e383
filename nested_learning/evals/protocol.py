"""What an evaluation is: a trained model answers examples, one by one, and every figure has an error bar."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nested_learning.data.source import DataConfig, Source
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session
from nested_learning.nn.language_model import LanguageModel

# what an answer to one example is kept as: plain JSON
Record = dict[str, Any]


class Metric(NamedTuple):
    """One figure: its value, its standard error (None: not known), from how many samples.

    `better` is "lower", "higher" or, of what is no merit, "neither"; `chance` is what who knows nothing gets (None: no
    such number).
    """

    value: float
    stderr: float | None
    n: int
    better: str
    chance: float | None = None


@dataclass(frozen=True)
class Samples:
    """What a figure is the ratio of, over independent samples: the sum of `numerators` by the sum of `denominators`.

    Samples are in the order of the examples, so that two policies can be compared pair by pair.
    """

    numerators: Sequence[float | int]
    denominators: Sequence[float | int]
    better: str
    chance: float | None = None

    @classmethod
    def mean(cls, values: Sequence[float | int], better: str, chance: float | None = None) -> "Samples":
        """Return the samples of a mean."""
        return cls(values, [1] * len(values), better, chance)

    def metric(self) -> Metric:
        """Return the figure."""
        return ratio(self.numerators, self.denominators, self.better)._replace(chance=self.chance)


# panel -> line -> its points: x, mean, standard error (None: not known)
Panels = dict[str, dict[str, list[tuple[float, float, float | None]]]]


class Grid(NamedTuple):
    """A figure over two things, for a heat map: what rows and columns are, their labels, `values[row][column]`."""

    row_name: str
    rows: Sequence[int | str]
    column_name: str
    columns: Sequence[int | str]
    values: Sequence[Sequence[float | None]]


@dataclass(kw_only=True)
class Report:
    """What a pack found: figures by name, of samples or as they are; the answers they summarise; curves to draw.

    `axis` says what the curves are over; `grids` are drawn as heat maps.
    """

    figures: dict[str, Samples | Metric]
    rows: list[Record] = field(default_factory=list)
    curves: Panels = field(default_factory=dict)
    axis: str = "position in the context"
    grids: dict[str, Grid] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Return the figures with their errors."""
        return {
            name: figure.metric() if isinstance(figure, Samples) else figure for name, figure in self.figures.items()
        }


@dataclass(frozen=True, kw_only=True)
class EvalContext:
    """A trained model, the data that it is asked about, and the memory policy under which it answers.

    `run`: the directory of its run, where reports go; `weights`: which of a checkpoint's are asked, model or ema.
    """

    model: LanguageModel
    tokenizer: Tokenizer | None
    data: DataConfig
    seed: int
    policy: MemoryConfig
    run: Path
    weights: str = "model"

    def open_session(self, batch: int, *, reads_text: bool = False) -> Session:
        """Open a session of `batch` rows. With `reads_text` each begins with the tokenizer's `end`, as documents do;
        rows of the data bring their own.
        """
        return Session(self.model, self.tokenizer if reads_text else None, batch=batch, policy=self.policy)

    def open_source(self, **changes: Any) -> Source:
        """Open the data, with `changes` to its configuration, in the tokens of the model."""
        return replace(self.data, **changes).build(self.seed, self.tokenizer)


@runtime_checkable
class EvalPack(Protocol):
    """One set of questions; an option of `evals=` builds it.

    `batch_size`: the examples that are answered together; it changes no result but by rounding. `reads_text`: whether
    sessions begin with the tokenizer's `end`. The driver (evals/asking.py) goes from example to example and keeps every
    answer, so that an evaluation that was interrupted goes on where it was.
    """

    batch_size: int
    reads_text: bool

    def examples(self, ctx: EvalContext) -> Sequence[Any]:
        """Return the examples, the same for every policy. Raises ConfigError, DataError for what cannot be asked."""
        ...

    def answer(self, session: Session, examples: Sequence[Any]) -> Sequence[list[Record]]:
        """Return the rows of each of the `examples`, one to each stream of `session`, which is at its beginning.

        Where `session.policy` is a MemorizeConfig, `session.memorize` what may be studied, never an answer, and add
        `MemorizeResult.rows()` to the rows: figures `memory/...` are reported by the driver.
        """
        ...

    def summarise(self, ctx: EvalContext, rows: Sequence[Record]) -> Report:
        """Return the figures of all rows, in the order of the examples."""
        ...


def ratio(numerators: Sequence[float | int], denominators: Sequence[float | int], better: str) -> Metric:
    """Return the ratio of two sums over samples, such as nats per token over rows, with its standard error.

    The error is that of the linearised ratio (delta method): with equal denominators, the error of the mean. Samples
    with denominator 0 do not count; at least one must be left. Source: ours (W. Cochran, Sampling Techniques, 2.29).
    """
    pairs = [(top, bottom) for top, bottom in zip(numerators, denominators, strict=True) if bottom]
    n, total = len(pairs), math.fsum(bottom for _, bottom in pairs)
    value = math.fsum(top for top, _ in pairs) / total
    return Metric(value, _stderr([(top - value * bottom) / total for top, bottom in pairs]), n, better)


def difference(first: Samples, second: Samples) -> Metric:
    """Return `first - second` of two figures over the same samples, with the standard error of the pairs.

    The error is that of the differences of the linearised ratios. Raises ValueError where samples are no pairs.
    Source: ours, as `ratio`.
    """
    one, other = first.metric(), second.metric()
    pairs = zip(_residuals(first, one.value), _residuals(second, other.value), strict=True)
    stderr = _stderr([a - b for a, b in pairs])
    return Metric(one.value - other.value, stderr, one.n, first.better)


def _residuals(samples: Samples, value: float) -> list[float]:
    total = math.fsum(samples.denominators)
    pairs = zip(samples.numerators, samples.denominators, strict=True)
    return [(top - value * bottom) / total for top, bottom in pairs if bottom]


def _stderr(residuals: Sequence[float]) -> float | None:
    n = len(residuals)
    return math.sqrt(math.fsum(each * each for each in residuals) * n / (n - 1)) if n > 1 else None
