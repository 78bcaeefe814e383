import numpy as np
import pytest
import torch

from nested_learning.data.batch import Batch
from nested_learning.data.loader import count_validation_batches, train_batch, validation_batches
from nested_learning.data.order import row_indices
from nested_learning.data.source import Source
from nested_learning.data.tasks.copy import CopyConfig
from nested_learning.data.text.packed import PackedText, to_stream
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError


@pytest.fixture
def source() -> Source:
    """13 training rows and 10 validation rows of 4 tokens, all different."""
    tokenizer = ByteTokenizer()
    train, validation = "".join(map(chr, range(32, 83))), "".join(map(chr, range(83, 122)))
    streams = {"train": to_stream([train], tokenizer), "validation": to_stream([validation], tokenizer)}
    return PackedText(streams, tokenizer, seq_len=4)


def join(batches: list[Batch]) -> Batch:
    return Batch(*(torch.cat(column) for column in zip(*batches, strict=True)))


def firsts(batch: Batch) -> list[int]:
    return batch.tokens[:, 0].tolist()


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (1, 2), (2, 1), (2, 2), (1, 8)])
def test_micro_batches_join_to_the_same_global_batch_for_any_split(source: Source, world: int, accumulate: int) -> None:
    for step in (0, 1, 5):
        whole = train_batch(source, 0, step, 0, 1, 8)
        micro_batches = [
            train_batch(source, 0, step, rank * accumulate + micro, world * accumulate, 8)
            for rank in range(world)
            for micro in range(accumulate)
        ]
        assert all(map(torch.equal, whole, join(micro_batches)))


def test_an_epoch_reads_every_row_once_and_the_next_epoch_in_another_order(source: Source) -> None:
    assert source.num_rows("train") == 13
    read = [first for step in range(26) for first in firsts(train_batch(source, 0, step, 0, 1, 1))]
    every = sorted(int(source.row("train", 0, i).tokens[0]) for i in range(13))
    assert sorted(read[:13]) == sorted(read[13:]) == every
    assert read[:13] != read[13:]


def test_a_batch_may_span_several_epochs(source: Source) -> None:
    singles = [first for step in range(40) for first in firsts(train_batch(source, 0, step, 0, 1, 1))]
    assert firsts(train_batch(source, 0, 0, 0, 1, 40)) == singles


def test_another_seed_reads_in_another_order(source: Source) -> None:
    assert firsts(train_batch(source, 0, 0, 0, 1, 13)) != firsts(train_batch(source, 1, 0, 0, 1, 13))


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does(source: Source) -> None:
    with pytest.raises(
        ConfigError,
        match=r"data\.batch_size=10: must be a multiple of the 4 micro-batches of a step; use data\.batch_size=8",
    ):
        train_batch(source, 0, 0, 0, 4, 10)
    with pytest.raises(ConfigError, match=r"use data\.batch_size=4"):
        train_batch(source, 0, 0, 0, 4, 1)


@pytest.mark.parametrize("num_rows", [1, 3, 10])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_fixed_validation_rows_without_overlap(source: Source, num_rows: int, world: int) -> None:
    def read(rank: int, world: int) -> list[int]:
        return [first for b in validation_batches(source, num_rows, 2, rank, world) for first in firsts(b)]

    alone = read(0, 1)
    assert len(alone) == len(set(alone)) == num_rows
    assert sorted(first for rank in range(world) for first in read(rank, world)) == sorted(alone)


@pytest.mark.parametrize("world", [2, 3])
def test_validation_batches_are_dealt_to_the_ranks_in_turn(source: Source, world: int) -> None:
    alone = [firsts(batch) for batch in validation_batches(source, 7, 2)]
    assert len(alone) == count_validation_batches(source, 7, 2) == 4
    for rank in range(world):
        assert [firsts(batch) for batch in validation_batches(source, 7, 2, rank, world)] == alone[rank::world]


def test_validation_rows_are_evenly_spaced_and_the_last_batch_may_be_short(source: Source) -> None:
    batches = list(validation_batches(source, 5, 2))
    assert [len(batch.tokens) for batch in batches] == [2, 2, 1]
    expected = [int(source.row("validation", 0, i).tokens[0]) for i in (0, 2, 4, 6, 8)]
    assert firsts(join(batches)) == expected


def test_validation_reads_the_whole_split_where_it_is_shorter_than_val_rows(source: Source) -> None:
    assert sum(len(batch.tokens) for batch in validation_batches(source, 1000, 4)) == 10


def test_the_second_epoch_of_a_synthetic_task_has_new_rows() -> None:
    source = CopyConfig(length=8).build(0)
    num_rows = source.num_rows("train")
    batch = train_batch(source, 3, num_rows, 0, 1, 1)
    (index,) = row_indices(3, 1, num_rows, np.array([0])).tolist()
    assert batch.tokens[0].tolist() == source.row("train", 1, index).tokens.tolist()
    assert batch.tokens[0].tolist() != source.row("train", 0, index).tokens.tolist()
