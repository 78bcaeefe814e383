"""Validation: loss and accuracy over fixed rows, independent of batch size and number of processes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from nested_learning.data.batch import IGNORE, Batch, to
from nested_learning.data.combined import rows_by_source
from nested_learning.data.loader import count_validation_batches, validation_batches
from nested_learning.data.source import Source
from nested_learning.nn.dropout import evaluating
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.metrics import Mean, add_means, means, memory_metrics
from nested_learning.objective.protocol import Objective, Step
from nested_learning.objective.training import Training
from nested_learning.shapes import Int, Tensor
from nested_learning.train.precision import autocast
from nested_learning.world.world import World


@dataclass
class Sums:
    """Sums of a batch, or over batches and processes, in float64; metrics are their quotients.

    `nats`, `targets`, `correct`: over all valid targets; `rows`, `rows_correct`: rows with a valid target, and those
    with no wrong one; `text_nats`, `text_bytes`: over targets that are text, with their length in UTF-8 bytes.
    """

    nats: float = 0.0
    targets: float = 0.0
    correct: float = 0.0
    rows: float = 0.0
    rows_correct: float = 0.0
    text_nats: float = 0.0
    text_bytes: float = 0.0

    def metrics(self, *, of_text: bool) -> dict[str, float]:
        """Return the metrics by name: bits per byte for text, the fraction of fully correct rows for a task."""
        metrics = {"val/loss": self.nats / self.targets, "val/accuracy": self.correct / self.targets}
        if of_text:
            return metrics | {"val/bpb": self.text_nats / (math.log(2) * self.text_bytes)}
        return metrics | {"val/sequence_accuracy": self.rows_correct / self.rows}


def validate(
    model: LanguageModel,
    objective: Objective,
    source: Source,
    *,
    num_rows: int,
    batch_size: int,
    world: World,
    dtype: torch.dtype = torch.float32,
    resets: bool = False,
) -> dict[str, float]:
    """Return the metrics of `model` on `num_rows` fixed validation rows, divided among all processes.

    `val/loss` (nats per target), `val/accuracy`, and with a tokenizer `val/bpb` (bits per utf-8 byte, over the targets
    that stand for text), without one `val/sequence_accuracy`. For levels with a clock inside the context
    also `val/memory/<level>/{writes,surprise,norm}`. `batch_size` changes results by rounding only, the number of
    processes not at all. With `resets` every document of a row starts from a new state. Each source of a mixture has
    its fraction of the rows, and metrics of its own, such as `val/<source>/loss`. Draws no random number and does not
    change the model.
    """
    reader = Training(model, objective, resets=resets, fixed_passes=world.is_sharding)
    all_sums: list[Sums] = []
    memory: list[tuple[str, Mean]] = []
    metrics: dict[str, float] = {}
    for name, (part, number) in rows_by_source(source, num_rows).items():
        with evaluating(model):
            sums, written = read_share(reader, part, number, batch_size, world, dtype)
        all_sums += sums
        memory += written.items()
        if name:
            of_source = sum_over_processes(sums, world).metrics(of_text=True)
            metrics |= {f"val/{name}/{metric.removeprefix('val/')}": value for metric, value in of_source.items()}
    metrics |= {f"val/{name}": value for name, value in means(add_means(memory), world).items()}
    return sum_over_processes(all_sums, world).metrics(of_text=source.tokenizer is not None) | metrics


def sum_over_processes(sums: Sequence[Sums], world: World) -> Sums:
    """Add up the sums of the batches of all processes."""
    return Sums(*world.sum([[vars(each)[name] for each in sums] for name in vars(Sums())]))


def read_share(
    reader: Training, source: Source, num_rows: int, batch_size: int, world: World, dtype: torch.dtype
) -> tuple[list[Sums], dict[str, Mean]]:
    """Read the part of `num_rows` validation rows of one source that belongs to this process."""
    batches = validation_batches(source, num_rows, batch_size, world.rank, world.size)
    token_bytes = None if source.tokenizer is None else torch.from_numpy(source.tokenizer.token_bytes)
    sums, memory = add_up(reader, (to(batch, world.device) for batch in batches), token_bytes, dtype)
    if world.is_sharding and len(sums) * world.size < count_validation_batches(source, num_rows, batch_size):
        # other processes have one batch more, and a forward pass of sharded parameters takes all of them
        read_batch(reader, to(next(validation_batches(source, 1, 1)), world.device), dtype)
    return sums, memory


@torch.no_grad()
def read_batch(reader: Training, batch: Batch, dtype: torch.dtype) -> Step:
    """Read `batch` from fresh states."""
    with autocast(batch.tokens.device, dtype):
        return reader(batch)


@torch.no_grad()
def add_up(
    reader: Training,
    batches: Iterable[Batch],
    token_bytes: Int[Tensor, "v"] | None,
    dtype: torch.dtype,
) -> tuple[list[Sums], dict[str, Mean]]:
    """Return the sums of each of `batches`, and the statistics of what they wrote to memories."""
    # an empty state gives the names, so that a process without batches has the same ones
    results, memory = [], [*memory_metrics(reader.model.init_state(0)).items()]
    for batch in batches:
        step = read_batch(reader, batch, dtype)
        nats, targets, sums = step.nats.cpu().double(), batch.targets.cpu(), Sums()
        results.append(sums)
        sums.nats = nats.sum().item()
        sums.targets = float(step.num_targets)
        sums.correct, sums.rows, sums.rows_correct = (
            float(step.metrics[name]) for name in ("correct", "rows", "rows_correct")
        )
        if token_bytes is not None:
            size = torch.where(targets == IGNORE, 0, token_bytes[targets.clamp(min=0)])
            sums.text_nats = nats[size > 0].sum().item()
            sums.text_bytes = float(size.sum())
        memory += memory_metrics(step.state).items()
    return results, add_means(memory)
