"""The interface of an evaluation pack: it makes examples, answers them with a session, and summarises the records.

A new pack is a class with the three methods of `EvalPack`, and a configuration that builds it (evals/config.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nested_learning.data.source import DataConfig, Source
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError
from nested_learning.evals.metrics import Metric, Samples
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session
from nested_learning.nn.language_model import LanguageModel

# what is kept of one answer: plain JSON
Record = dict[str, Any]

# panel -> line -> its points: x, mean, standard error (None: unknown)
Panels = dict[str, dict[str, list[tuple[float, float, float | None]]]]


class Grid(NamedTuple):
    """A metric over two variables, drawn as a heat map: the variables, their labels, `values[row][column]`."""

    row_name: str
    rows: Sequence[int | str]
    column_name: str
    columns: Sequence[int | str]
    values: Sequence[Sequence[float | None]]


@dataclass(kw_only=True)
class Report:
    """The results of a pack: `samples` of each metric (or the metric itself), the `records`, and what to plot.

    `curves` are plotted over `axis`, `grids` as heat maps.
    """

    samples: dict[str, Samples | Metric]
    records: list[Record] = field(default_factory=list)
    curves: Panels = field(default_factory=dict)
    axis: str = "position in the context"
    grids: dict[str, Grid] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Return the metrics with their standard errors, by name."""
        return {name: each.metric() if isinstance(each, Samples) else each for name, each in self.samples.items()}


@dataclass(frozen=True, kw_only=True)
class EvalContext:
    """What a pack is evaluated on: a trained model, its data, and the memory policy.

    `run` is the run directory, where reports are written. `weights` says which weights of the checkpoint: model or ema.
    """

    model: LanguageModel
    tokenizer: Tokenizer | None
    data: DataConfig
    seed: int
    policy: MemoryConfig
    run: Path
    weights: str = "model"

    def open_session(self, batch: int, *, reads_text: bool = False) -> Session:
        """Open a session of `batch` rows.

        With `reads_text` each row begins with the tokenizer's `end` token, as documents do in training. Rows of the
        data bring their own.
        """
        return Session(self.model, self.tokenizer if reads_text else None, batch=batch, policy=self.policy)

    def open_source(self, **changes: Any) -> Source:
        """Open the data, with `changes` to its configuration, in the tokens of the model.

        Raises ConfigError for data that the model cannot read.
        """
        source = replace(self.data, **changes).build(self.seed, self.tokenizer)
        # a task refuses the tokenizer of a model of text
        if source.vocab_size != self.model.vocab_size or (source.tokenizer is None) != (self.tokenizer is None):
            raise ConfigError(
                f"data={self.data.name}: has {source.vocab_size} tokens{' of text' if source.tokenizer else ''}, and "
                f"the model was trained on a task of {self.model.vocab_size}; leave data= out to evaluate it on the "
                "data of its run"
            )
        return source

    def require_tokenizer(self, pack: str) -> Tokenizer:
        """Return the tokenizer of the model; raise ConfigError where it has none."""
        if self.tokenizer is None:
            raise ConfigError(
                f"evals={pack} needs a model that reads text, and a model of data={self.data.name} has no tokenizer; "
                f"evaluate a checkpoint of data=text, or leave {pack} out"
            )
        return self.tokenizer


@runtime_checkable
class EvalPack(Protocol):
    """One evaluation, built by an option of `evals=`.

    `batch_size`: the examples that are answered together; it changes results by rounding only. `reads_text`: whether
    sessions begin with the tokenizer's `end` token. The driver, `evals/runner.py`, calls `answer` batch by batch and
    saves every answer, so that an interrupted evaluation resumes.
    """

    batch_size: int
    reads_text: bool

    def examples(self, ctx: EvalContext) -> Sequence[Any]:
        """Return the examples, the same for every policy. Raises ConfigError or DataError where there can be none."""
        ...

    def answer(self, session: Session, examples: Sequence[Any]) -> Sequence[list[Record]]:
        """Return the records of each of the `examples`, one example to each row of `session`, which has read nothing.

        Where `session.memorizes`, call `session.memorize` with the context, never with an answer, and add
        `MemorizeResult.records()` to the records: the driver reports their keys `memory/...` as metrics.
        """
        ...

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the report on all records, which are in the order of the examples."""
        ...
