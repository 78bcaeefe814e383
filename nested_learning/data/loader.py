"""From a source to batches: pure functions of (seed, step, micro-batch), so that resuming is reading the next step."""

from collections.abc import Iterator, Sequence

import numpy as np

from nested_learning.data.batch import Batch, collate
from nested_learning.data.curriculum import Stage, constant_stages, stage_at
from nested_learning.data.order import Positions, endless_order, permute
from nested_learning.data.source import Row, Source
from nested_learning.errors import ConfigError
from nested_learning.seeds import derive_seed


def train_batch(
    source: Source, seed: int, step: int, micro_batch: int, num_micro_batches: int, batch_size: int
) -> Batch:
    """Return `read_micro_batch` of a run whose steps all have `batch_size` rows of the same length."""
    stages = constant_stages(batch_size, source.seq_len)
    return read_micro_batch(source, seed, stages, step, micro_batch, num_micro_batches)


def read_micro_batch(
    source: Source, seed: int, stages: Sequence[Stage], step: int, micro_batch: int, num_micro_batches: int
) -> Batch:
    """Return micro-batch `micro_batch` of the global batch of `step` (counted from 0).

    The global batch is the next `batch_size` rows of the endless epoch-by-epoch order, cut evenly into
    `num_micro_batches`: joined they are one batch, however it was cut. In a stage of shorter rows the rows of the
    order are cut, and their parts are mixed within the stage and the epoch, so that still every part is read once an
    epoch. Raises ConfigError when the batch cannot be cut evenly.
    """
    stage = stage_at(stages, step)
    check_micro_batches(stage, num_micro_batches)
    size = stage.batch_size // num_micro_batches
    start = stage.first_token // stage.seq_len + (step - stage.first_step) * stage.batch_size + micro_batch * size
    return collate(_train_rows(source, seed, stage, np.arange(start, start + size)))


def check_micro_batches(stage: Stage, num_micro_batches: int) -> None:
    """Raise ConfigError when the batches of `stage` cannot be cut evenly into `num_micro_batches`."""
    if stage.batch_size % num_micro_batches:
        key = "data.batch_size" if stage.end_step is None else "stages: batch_size"
        near = max(1, round(stage.batch_size / num_micro_batches)) * num_micro_batches
        raise ConfigError(
            f"{key}={stage.batch_size}: must divide by the {num_micro_batches} micro-batches of a step; "
            f"use {key}={near}, or another micro_batches"
        )


def validation_batches(
    source: Source, num_rows: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Yield this rank's share of `num_rows` fixed rows, evenly spaced over the validation split.

    All rows of the split where it has fewer. They are cut into batches, the same for any number of ranks, which take
    turns; the last batch may be short, and a rank may have one batch less.
    """
    count = min(num_rows, source.num_rows("validation"))
    for start in range(0, count, batch_size)[rank::world_size]:
        here = range(start, min(start + batch_size, count))
        yield collate([validation_row(source, index, count) for index in here])


def validation_row(source: Source, index: int, count: int) -> Row:
    """Return row `index` of `count` rows, evenly spaced over the validation split."""
    return source.row("validation", 0, index * source.num_rows("validation") // count)


def count_validation_batches(source: Source, num_rows: int, batch_size: int) -> int:
    """Return how many batches `validation_batches` yields on all ranks together."""
    return -(-min(num_rows, source.num_rows("validation")) // batch_size)


def read_in_order(source: Source, seed: int, places: Positions) -> list[Row]:
    """Return the training rows at `places` of the endless epoch-by-epoch order."""
    epochs, indices = endless_order(seed, source.num_rows("train"), places)
    return [source.row("train", *place) for place in zip(epochs.tolist(), indices.tolist(), strict=True)]


def _train_rows(source: Source, seed: int, stage: Stage, places: Positions) -> list[Row]:
    """Return the rows of a stage at `places` of the endless order, counted in rows of the stage."""
    parts = source.seq_len // stage.seq_len
    if parts == 1:
        return read_in_order(source, seed, places)
    whole, part = np.divmod(_mix(places, seed, stage, source.num_rows("train") * parts), parts)
    rows = read_in_order(source, seed, whole)
    return [_cut(row, start, stage.seq_len) for row, start in zip(rows, (part * stage.seq_len).tolist(), strict=True)]


def _mix(places: Positions, seed: int, stage: Stage, epoch_length: int) -> Positions:
    """Permute the places of a stage within each epoch: the parts of one row must not all come in one batch."""
    assert stage.end_step is not None, "the last stage reads whole rows"
    first = stage.first_token // stage.seq_len
    end = first + (stage.end_step - stage.first_step) * stage.batch_size
    mixed = np.empty_like(places)
    for epoch in np.unique(places // epoch_length).tolist():
        low, high = max(first, epoch * epoch_length), min(end, (epoch + 1) * epoch_length)
        here = (places >= low) & (places < high)
        mixed[here] = low + permute(derive_seed(seed, "parts", first, epoch), high - low, places[here] - low)
    return mixed


def _cut(row: Row, start: int, length: int) -> Row:
    """Return `length` tokens of `row` from `start` on, its documents counted from 0 again."""
    tokens, targets, documents = (column[start : start + length] for column in row)
    return Row(tokens, targets, documents - documents[0])
