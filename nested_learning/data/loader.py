"""From a source to batches: pure functions of (seed, step, piece), so that resuming means asking for the next step."""

from collections.abc import Iterator

from nested_learning.data.batch import Batch, collate
from nested_learning.data.order import row_index
from nested_learning.data.source import Row, Source
from nested_learning.errors import ConfigError


def train_batch(
    source: Source, seed: int, step: int, micro_batch: int, num_micro_batches: int, batch_size: int
) -> Batch:
    """Return piece `micro_batch` of the global batch of `step` (counted from 0). Source: ours.

    The global batch is rows [step * batch_size, (step + 1) * batch_size) of the endless epoch-by-epoch order, cut
    evenly into `num_micro_batches` pieces: joined they are one batch, however it was cut.
    Raises ConfigError when `batch_size` cannot be cut evenly.
    """
    if batch_size % num_micro_batches:
        near = max(1, round(batch_size / num_micro_batches)) * num_micro_batches
        raise ConfigError(
            f"data.batch_size={batch_size}: must divide by the {num_micro_batches} pieces of a step; "
            f"use data.batch_size={near}, or another micro_batches"
        )
    size = batch_size // num_micro_batches
    start = step * batch_size + micro_batch * size
    return collate([_train_row(source, seed, position) for position in range(start, start + size)])


def validation_batches(
    source: Source, num_rows: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Yield this rank's share of `num_rows` fixed rows, evenly spaced over the validation split. Source: ours.

    All rows of the split where it has fewer. The last batch may be short, and a rank may have one batch less.
    """
    available = source.num_rows("validation")
    count = min(num_rows, available)
    indices = [i * available // count for i in range(count)][rank::world_size]
    for start in range(0, len(indices), batch_size):
        yield collate([source.row("validation", 0, index) for index in indices[start : start + batch_size]])


def _train_row(source: Source, seed: int, position: int) -> Row:
    epoch, i = divmod(position, source.num_rows("train"))
    return source.row("train", epoch, row_index(seed, epoch, source.num_rows("train"), i))
