from itertools import chain, pairwise

import pytest
import torch
from data.letters import make_source

from nested_learning.data.curriculum import StageConfig, constant_stages, plan_stages, stage_at, tokens_before
from nested_learning.data.feed import Feed
from nested_learning.data.source import IGNORE
from nested_learning.data.text.packed import PackedText, to_stream
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError

SHORT_FIRST = [StageConfig(steps=6, batch_size=4, seq_len=2), StageConfig(steps=4, batch_size=4, seq_len=4)]


def test_a_step_belongs_to_one_stage_and_tokens_add_up() -> None:
    stages = plan_stages(SHORT_FIRST, 2, 8)
    shapes = [(stage_at(stages, step).batch_size, stage_at(stages, step).seq_len) for step in range(13)]
    assert shapes == [(4, 2)] * 6 + [(4, 4)] * 4 + [(2, 8)] * 3
    read = [tokens_before(stages, step) for step in range(14)]
    assert read[0] == 0
    assert [after - before for before, after in pairwise(read)] == [b * t for b, t in shapes]


def test_without_stages_all_steps_have_one_size() -> None:
    assert plan_stages([], 4, 8) == constant_stages(4, 8)
    assert tokens_before(constant_stages(4, 8), 1000) == 32_000


def test_a_step_reads_rows_of_its_stage() -> None:
    feed = Feed(make_source(seq_len=8, num_tokens=88), 0, plan_stages(SHORT_FIRST, 2, 8), 2, range(1, 2))
    assert [tuple(feed.read(step)[0].tokens.shape) for step in (0, 5, 6, 9, 10)] == [
        (2, 2),
        (2, 2),
        (2, 4),
        (2, 4),
        (1, 8),
    ]
    assert [feed.batch_size(step) for step in (0, 6, 10)] == [4, 4, 2]
    assert feed.min_step_tokens() == 8 and feed.tokens_before(10) == 112


@pytest.mark.parametrize("seed", range(3))
def test_an_epoch_across_stages_has_every_target_exactly_once(seed: int) -> None:
    # 88 targets: 11 rows of 8; 6 of them are read in 12 steps of the first stages, then 5 by whole rows
    source = make_source(seq_len=8, num_tokens=88)
    stages = [StageConfig(steps=6, batch_size=2, seq_len=2), StageConfig(steps=3, batch_size=2, seq_len=4)]
    feed = Feed(source, seed, plan_stages(stages, 1, 8))
    every = sorted(int(t) for i in range(11) for t in source.row("train", 0, i).targets)
    # the first epoch ends at step 6 + 3 + 5: 3 rows, 3 rows, 5 rows
    epochs = [range(14), range(14, 25)]
    for steps in epochs:
        targets = torch.cat([feed.read(step)[0].targets.flatten() for step in steps])
        assert sorted(targets.tolist()) == every
        assert (targets != IGNORE).all()


def test_a_stage_longer_than_an_epoch_reads_each_epoch_exactly_once() -> None:
    source = make_source(seq_len=8, num_tokens=88)
    feed = Feed(source, 0, plan_stages([StageConfig(steps=88, batch_size=1, seq_len=4)], 1, 8))
    read = [feed.read(step)[0].targets.flatten().tolist() for step in range(88)]
    every = sorted(int(t) for i in range(11) for t in source.row("train", 0, i).targets)
    for epoch in range(4):
        assert sorted(chain(*read[22 * epoch : 22 * (epoch + 1)])) == every
    # the two halves of a row are not read one after the other
    neighbours = sum(second[0] == first[-1] + 1 for first, second in pairwise(read))
    assert neighbours < 12


def test_documents_of_a_part_count_from_zero() -> None:
    tokenizer = ByteTokenizer()
    stream = to_stream(["a", "bc", "defghi", "j", "k"] * 10, tokenizer)
    source = PackedText({"train": stream, "validation": stream}, tokenizer, 8)
    feed = Feed(
        source, 0, plan_stages([StageConfig(steps=2 * source.num_rows("train"), batch_size=1, seq_len=4)], 1, 8)
    )
    parts = [feed.read(step)[0].documents[0] for step in range(2 * source.num_rows("train"))]
    assert all(part[0] == 0 for part in parts) and max(int(part[-1]) for part in parts) == 1


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ((0, 1, 4), r"stages: steps=0 must be at least 1"),
        ((1, 1, 3), r"stages\.0\.seq_len=3: must divide data\.seq_len=8, .* try stages\.0\.seq_len=2"),
        ((1, 1, 16), r"stages\.0\.seq_len=16: must divide data\.seq_len=8, .* try stages\.0\.seq_len=8"),
        ((3, 1, 4), r"stages\.0\.steps=3: its 3 rows must be a multiple of 2, .* try stages\.0\.steps=4"),
    ],
)
def test_an_impossible_stage_is_refused_with_a_possible_one(stage: tuple[int, int, int], message: str) -> None:
    steps, batch_size, seq_len = stage
    with pytest.raises(ConfigError, match=message):
        plan_stages([StageConfig(steps=steps, batch_size=batch_size, seq_len=seq_len)], 1, 8)
