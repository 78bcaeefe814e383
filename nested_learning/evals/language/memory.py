"""`evals=memory`: memory statistics along the context: norm, effective rank, surprise, retention."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from nested_learning.data.batch import Batch, collate
from nested_learning.data.source import Source
from nested_learning.data.text.packed import PackingConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.metrics import Metric, Samples
from nested_learning.evals.protocol import EvalContext, Panels, Record, Report
from nested_learning.evals.reading import RowToRead, ValidationRows, buckets
from nested_learning.inference.session import PREFILL_TOKENS, Session
from nested_learning.nn.telemetry import MemoryStats, level_stats, memory_stats, observing

# metric -> which direction is better; how much a memory holds and keeps is descriptive only
METRICS = {"norm": "neither", "rank": "neither", "surprise": "lower", "retention": "neither"}

# memory, metric, first and last position of a span
Key = tuple[str, str, int, int]


class MemoryPack:
    """Reads validation rows from empty states and reports statistics of the memories by position in the context.

    A metric has a name such as `read/surprise/32-128`: the mean over the tokens of these positions (norm and rank: the
    value at their end), over layers and rows. The records have each layer separately.
    """

    reads_text = False

    def __init__(self, length_factor: int, num_rows: int, batch_size: int) -> None:
        self.length_factor = length_factor
        self.num_rows = num_rows
        self.batch_size = batch_size

    def examples(self, ctx: EvalContext) -> ValidationRows:
        """Return the rows. Raises ConfigError for other policies than online, and for rows that cannot be longer."""
        if ctx.policy.name != "online":
            raise ConfigError(
                f"evals=memory: measures the writes of a plain forward pass, not those of memory={ctx.policy.name}; "
                "use memory=online"
            )
        return ValidationRows(self.open_source(ctx), self.num_rows)

    def answer(self, session: Session, examples: Sequence[RowToRead]) -> list[list[Record]]:
        """Return the statistics of each memory of each layer, span by span."""
        answers: list[list[Record]] = [[] for _ in examples]
        for start, end, stats in read_with_stats(session, collate([example.row for example in examples])):
            for answer, example, row in zip(answers, examples, by_row(stats), strict=True):
                answer.append({"row": example.number, "start": start, "end": end} | row)
        return answers

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics by position. Raises ConfigError for a model without a memory that writes."""
        if not records:
            raise ConfigError("evals=memory: this model has no memory that writes in a forward pass; leave memory out")
        samples = samples_by_key(records)
        found = {key: Samples.mean(values, METRICS[key[1]]) for key, values in samples.items()}
        named = {f"{memory}/{name}/{start}-{end}": each for (memory, name, start, end), each in found.items()}
        metrics = {key: each.metric() for key, each in found.items()}
        return Report(samples=dict(named), records=list(records), curves=position_curves(metrics))

    def open_source(self, ctx: EvalContext) -> Source:
        """Open the data with rows of the configured length."""
        if self.length_factor == 1:
            return ctx.open_source()
        if not isinstance(ctx.data, PackingConfig):
            raise ConfigError(
                f"evals.memory.length_factor={self.length_factor}: the rows of data={ctx.data.name} have a fixed "
                "length; use evals.memory.length_factor=1"
            )
        return ctx.open_source(seq_len=ctx.data.seq_len * self.length_factor)


def read_with_stats(session: Session, batch: Batch) -> Iterator[tuple[int, int, MemoryStats]]:
    """Read `batch` span by span; yield the statistics of each memory of each layer."""
    for start, end in buckets(batch.tokens.shape[1]):
        before = session.state
        with observing(session.model.blocks) as seen:
            for tokens in batch.tokens[:, start:end].split(PREFILL_TOKENS, 1):
                session.read(tokens)
        for stats in memory_stats(seen) + level_stats(before, session.state):
            yield start, end, stats


def by_row(stats: MemoryStats) -> Iterator[dict[str, Any]]:
    """Split statistics into one dict per row."""
    columns = {name: of_rows.tolist() for name, of_rows in stats.metrics.items()}
    for row in zip(*columns.values(), strict=True):
        yield {"layer": stats.layer, "memory": stats.level} | dict(zip(columns, row, strict=True))


def samples_by_key(records: Sequence[Record]) -> dict[Key, list[float]]:
    """Return the samples of every metric, one for each row: its mean over layers."""
    layers: dict[Key, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for metric in (name for name in METRICS if name in record):
            layers[record["memory"], metric, record["start"], record["end"]][record["row"]].append(record[metric])
    memories, names = list(dict.fromkeys(key[0] for key in layers)), list(METRICS)
    # in the order of memories, then metrics, then positions
    keys = sorted(layers, key=lambda key: (memories.index(key[0]), names.index(key[1]), key[2]))
    return {key: [fmean(values) for values in layers[key].values()] for key in keys}


def position_curves(metrics: dict[Key, Metric]) -> Panels:
    """Return curves over the position in the context, a panel for each metric."""
    panels: Panels = {name: {} for name in METRICS}
    for (memory, name, _, end), metric in metrics.items():
        panels[name].setdefault(memory, []).append((float(end), metric.value, metric.stderr))
    return panels
