import pytest

from nested_learning.data.source import IGNORE
from nested_learning.data.tasks.recall import RecallConfig
from nested_learning.errors import ConfigError

CONFIGS = [
    RecallConfig(),
    RecallConfig(gap=0, num_pairs=1),
    RecallConfig(num_pairs=8, gap=5, num_queries=3, num_keys=9, num_values=2, num_noise=1),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_only_queried_keys_have_a_target_which_is_their_value(config: RecallConfig) -> None:
    source = config.build(0)
    queries = config.num_pairs if config.num_queries is None else config.num_queries
    for index in range(50):
        tokens, targets, _ = (column.tolist() for column in source.row("train", 0, index))
        start = 2 * config.num_pairs + config.gap
        value_of = dict(zip(tokens[0 : 2 * config.num_pairs : 2], tokens[1 : 2 * config.num_pairs : 2], strict=True))
        assert len(value_of) == config.num_pairs
        queried = tokens[start::2]
        assert len(set(queried)) == len(queried) == queries
        assert tokens[start + 1 :: 2] == [0] * queries
        expected = [IGNORE] * start + [target for key in queried for target in (value_of[key], IGNORE)]
        assert targets == expected
        assert len(tokens) == len(targets) == source.seq_len


def test_the_vocabulary_is_blank_keys_values_noise() -> None:
    config = RecallConfig()
    source = config.build(0)
    assert source.vocab_size == 64
    rows = [source.row("train", 0, index).tokens for index in range(300)]
    assert {int(t) for row in rows for t in row[0:8:2]} == set(range(1, 24))
    assert {int(t) for row in rows for t in row[1:8:2]} == set(range(24, 48))
    assert {int(t) for row in rows for t in row[8:40]} == set(range(48, 64))


def test_rows_of_fewer_pairs_end_in_blanks_and_every_number_occurs() -> None:
    config = RecallConfig(min_pairs=2, num_pairs=5, gap=3, num_queries=4)
    source, seen = config.build(0), set()
    for index in range(200):
        tokens, targets, _ = (column.tolist() for column in source.row("train", 0, index))
        count = next(n for n in range(6) if not 0 < tokens[2 * n] < 24)
        value_of = dict(zip(tokens[0 : 2 * count : 2], tokens[1 : 2 * count : 2], strict=True))
        start, queried = 2 * count + 3, min(4, count)
        assert all(token >= 48 for token in tokens[2 * count : start])
        keys = tokens[start : start + 2 * queried : 2]
        expected = [IGNORE] * start + [target for key in keys for target in (value_of[key], IGNORE)]
        assert targets == expected + [IGNORE] * (source.seq_len - len(expected))
        assert tokens[len(expected) :] == [0] * (source.seq_len - len(expected))
        assert len(set(keys)) == queried
        seen.add(count)
    assert seen == {2, 3, 4, 5}


def test_the_last_value_of_a_repeated_key_is_its_target() -> None:
    config = RecallConfig(num_pairs=4, num_changed=2, gap=3)
    for index in range(100):
        tokens, targets, _ = (column.tolist() for column in config.build(0).row("train", 0, index))
        shown = list(zip(tokens[0:12:2], tokens[1:12:2], strict=True))
        first, last = dict(shown[:4]), dict(shown)
        assert len(first) == 4 and set(last) == set(first)
        assert sum(first[key] != last[key] for key in first) == 2
        assert dict(zip(tokens[15::2], targets[15::2], strict=True)) == last
        assert len(tokens) == config.seq_len == 23


def test_queries_are_in_random_order() -> None:
    source = RecallConfig().build(0)
    rows = [source.row("train", 0, index).tokens for index in range(300)]
    assert any(row[0:8:2].tolist() != row[40::2].tolist() for row in rows)
    assert any(row[0:8:2].tolist() == row[40::2].tolist() for row in rows)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_pairs": 0}, r"data\.num_pairs=0: must be at least 1"),
        ({"gap": -1}, r"data\.gap=-1: must be at least 0"),
        ({"num_queries": 5}, r"data\.num_queries=5: .* at most data\.num_queries=4"),
        ({"num_queries": 0}, r"data\.num_queries=0: must be at least 1"),
        ({"min_pairs": 5}, r"data\.min_pairs=5: must be 1 to data\.num_pairs=4; use data\.min_pairs=1"),
        ({"num_pairs": 24}, r"data\.num_keys=23: too few .* at least data\.num_keys=24"),
        ({"num_values": 0}, r"data\.num_values=0: must be at least 1"),
        ({"num_noise": 0}, r"data\.num_noise=0: must be at least 1"),
        ({"num_changed": 5}, r"data\.num_changed=5: .* use data\.num_changed=4"),
        ({"num_changed": 1, "num_values": 1}, r"data\.num_values=1: must be at least 2"),
    ],
)
def test_options_that_contradict_each_other_are_refused_by_name(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RecallConfig(**values)  # type: ignore[arg-type]
