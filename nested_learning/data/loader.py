"""From a source to batches: pure functions of (seed, step, micro-batch), so a run resumes by reading the next step."""

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
    """Return one micro-batch of a run whose steps all read `batch_size` whole rows; see `read_micro_batch`."""
    stages = constant_stages(batch_size, source.seq_len)
    return read_micro_batch(source, seed, stages, step, micro_batch, num_micro_batches)


def read_micro_batch(
    source: Source, seed: int, stages: Sequence[Stage], step: int, micro_batch: int, num_micro_batches: int
) -> Batch:
    """Return micro-batch `micro_batch` of the global batch of `step` (counted from 0).

    The global batch is the next `batch_size` rows of the endless order, split evenly into `num_micro_batches`; their
    concatenation does not depend on that number. A stage of shorter rows splits the rows of the order into parts and
    permutes the parts within the epoch, so that every part is still read once per epoch. Raises ConfigError when the
    batch does not divide evenly.
    """
    stage = stage_at(stages, step)
    check_micro_batches(stage, num_micro_batches)
    size = stage.batch_size // num_micro_batches
    # position of the first row, counted in rows of the stage's length as if the whole run had read such rows
    start = stage.first_token // stage.seq_len + (step - stage.first_step) * stage.batch_size + micro_batch * size
    return collate(_train_rows(source, seed, stage, np.arange(start, start + size)))


def check_micro_batches(stage: Stage, num_micro_batches: int) -> None:
    """Raise ConfigError when the batches of `stage` do not divide into `num_micro_batches`."""
    if stage.batch_size % num_micro_batches:
        key = "data.batch_size" if stage.end_step is None else "stages: batch_size"
        near = max(1, round(stage.batch_size / num_micro_batches)) * num_micro_batches
        raise ConfigError(
            f"{key}={stage.batch_size}: must be a multiple of the {num_micro_batches} micro-batches of a step; "
            f"use {key}={near}, or change micro_batches"
        )


def validation_batches(
    source: Source, num_rows: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Yield this rank's batches of `num_rows` fixed rows, evenly spaced over the validation split.

    A split with fewer rows is read whole. The batches are the same for any number of ranks and are dealt to the ranks
    in turn. The last batch may be short, and some ranks may get one batch less.
    """
    count = min(num_rows, source.num_rows("validation"))
    for start in range(0, count, batch_size)[rank::world_size]:
        indices = range(start, min(start + batch_size, count))
        yield collate([validation_row(source, index, count) for index in indices])


def validation_row(source: Source, index: int, count: int) -> Row:
    """Return row `index` of `count` rows that are evenly spaced over the validation split."""
    return source.row("validation", 0, index * source.num_rows("validation") // count)


def count_validation_batches(source: Source, num_rows: int, batch_size: int) -> int:
    """Return how many batches `validation_batches` yields, summed over ranks."""
    return -(-min(num_rows, source.num_rows("validation")) // batch_size)


def read_in_order(source: Source, seed: int, positions: Positions) -> list[Row]:
    """Return the training rows at `positions` of the endless order."""
    epochs, indices = endless_order(seed, source.num_rows("train"), positions)
    return [source.row("train", *row) for row in zip(epochs.tolist(), indices.tolist(), strict=True)]


def _train_rows(source: Source, seed: int, stage: Stage, positions: Positions) -> list[Row]:
    """Return the rows of a stage at `positions` of the endless order, which count rows of the stage's length."""
    # the number of rows of the stage in one row of the source
    parts = source.seq_len // stage.seq_len
    if parts == 1:
        return read_in_order(source, seed, positions)
    whole, part = np.divmod(_shuffle_parts(positions, seed, stage, source.num_rows("train") * parts), parts)
    # the permutation scatters the parts of a row, so the row is read once for each of them
    rows = read_in_order(source, seed, whole)
    return [_slice(row, start, stage.seq_len) for row, start in zip(rows, (part * stage.seq_len).tolist(), strict=True)]


def _shuffle_parts(positions: Positions, seed: int, stage: Stage, epoch_length: int) -> Positions:
    """Permute the positions of a stage within each epoch, or all parts of a row would come in one batch."""
    assert stage.end_step is not None, "the last stage reads whole rows"
    first = stage.first_token // stage.seq_len
    end = first + (stage.end_step - stage.first_step) * stage.batch_size
    shuffled = np.empty_like(positions)
    for epoch in np.unique(positions // epoch_length).tolist():
        # the stage may start and end inside an epoch; it permutes only its own positions, so the other stages read
        # what it leaves over
        low, high = max(first, epoch * epoch_length), min(end, (epoch + 1) * epoch_length)
        here = (positions >= low) & (positions < high)
        shuffled[here] = low + permute(derive_seed(seed, "parts", first, epoch), high - low, positions[here] - low)
    return shuffled


def _slice(row: Row, start: int, length: int) -> Row:
    """Return `length` tokens of `row` starting at `start`, with documents counted from 0."""
    tokens, targets, documents = (column[start : start + length] for column in row)
    return Row(tokens, targets, documents - documents[0])
