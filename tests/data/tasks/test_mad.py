"""The MAD tasks, checked against their definitions."""

import numpy as np
import pytest

from nested_learning.data.source import IGNORE, SPLITS
from nested_learning.data.tasks.mad import BASELINES, MadConfig
from nested_learning.errors import ConfigError

ROWS = 40


def rows(config: MadConfig, split: str) -> list[tuple[list[int], list[int]]]:
    """Return tokens and targets of a few rows."""
    source = config.build(0)
    found = [source.row(split, 0, index) for index in range(ROWS)]
    assert all(len(row.tokens) == len(row.targets) == source.seq_len for row in found)
    return [(row.tokens.tolist(), row.targets.tolist()) for row in found]


@pytest.mark.parametrize("task", ["in_context_recall", "fuzzy_recall", "noisy_recall"])
def test_recall_trains_on_every_next_token(task: str) -> None:
    for tokens, targets in rows(MadConfig(task=task), "train"):
        assert targets[:-1] == tokens[1:]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_recall_tests_on_the_values_of_keys_seen_before(noise: float, split: str) -> None:
    config = MadConfig(task="noisy_recall" if noise else "in_context_recall", noise=noise, train_on="asked")
    num_keys, first_noise = 8, 16
    for tokens, targets in rows(config, split):
        value_of: dict[int, int] = {}
        for place in range(0, len(tokens), 2):
            key = tokens[place]
            assert targets[place] == value_of.get(key, IGNORE)
            if place + 1 < len(tokens):
                value = tokens[place + 1]
                assert targets[place + 1] == IGNORE
                if key < num_keys:
                    assert num_keys <= value < first_noise and value_of.setdefault(key, value) == value
                else:
                    assert noise and key >= first_noise <= value
        assert targets[-1] != IGNORE


def test_the_fraction_of_noise_is_the_configured_one() -> None:
    config = MadConfig(task="noisy_recall", noise=0.6)
    keys = np.array([tokens[::2] for tokens, _ in rows(config, "train")])
    assert (keys >= 16).mean() == pytest.approx(0.6, abs=0.05)


def read_motifs(tokens: list[int], num_keys: int, pad: int) -> list[tuple[tuple[int, ...], int, int]]:
    """Cut a row of fuzzy recall into (key, where its value begins, where it ends)."""
    place, found = 0, []
    while place < len(tokens) and tokens[place] == pad:
        place += 1
    while place < len(tokens):
        start = place
        while place < len(tokens) and tokens[place] < num_keys:
            place += 1
        middle = place
        while place < len(tokens) and tokens[place] >= num_keys:
            place += 1
        found.append((tuple(tokens[start:middle]), middle, place))
    return found


def test_fuzzy_recall_tests_on_all_tokens_of_values_of_keys_seen_before() -> None:
    repeated = 0
    for tokens, targets in rows(MadConfig(task="fuzzy_recall", vocabulary=8, max_motif=3), "validation"):
        # the shift removes the last token, which is only a target
        whole = [*tokens, targets[-1]]
        expected, value_of = [IGNORE] * len(tokens), {}
        for key, start, end in read_motifs(whole, 3, 7):
            assert len(key) == len(set(key)) == 3
            value = tuple(whole[start:end])
            assert len(set(value)) == len(value) <= 3
            if key in value_of:
                assert value == value_of[key]
                expected[start - 1 : end - 1] = value
                repeated += 1
            value_of[key] = value
        assert targets == expected
    assert repeated > ROWS


def test_fuzzy_recall_trains_on_keys_and_values_of_every_length() -> None:
    found = [read_motifs(tokens[:-4], 7, 15) for tokens, _ in rows(MadConfig(task="fuzzy_recall"), "train")]
    motifs = [motif for each in found for motif in each[:-1]]
    assert {end - start for _, start, end in motifs} == {1, 2, 3} == {len(key) for key, _, _ in motifs}


def test_the_last_pair_of_fuzzy_recall_was_shown_before() -> None:
    for tokens, targets in rows(MadConfig(task="fuzzy_recall"), "validation"):
        *shown, (key, _, _) = read_motifs([*tokens, targets[-1]], 7, 15)
        assert key in [each for each, _, _ in shown]


@pytest.mark.parametrize("split", SPLITS)
def test_selective_copying_scores_exactly_the_symbols_in_their_order(split: str) -> None:
    blank, copy = 14, 15
    for tokens, targets in rows(MadConfig(task="selective_copying", length=64), split):
        assert tokens[-17] == copy and tokens[-16:] == [blank] * 16 and tokens[-18] != blank
        assert targets == [IGNORE] * 48 + [token for token in tokens[:-17] if token != blank]
        assert copy not in tokens[:-17]


@pytest.mark.parametrize("split", SPLITS)
def test_compression_scores_the_token_at_every_position(split: str) -> None:
    config = MadConfig(task="compression", length=8, vocabulary=5)
    assert config.vocab_size == 40
    for tokens, targets in rows(config, split):
        assert tokens[-1] == 4 and max(tokens[:-1]) < 4
        assert targets == [5 * place + token for place, token in enumerate(tokens)]


def test_memorization_uses_one_map_for_all_rows_and_seeds() -> None:
    value_of: dict[int, int] = {}
    for seed, split in ((0, "train"), (1, "validation")):
        source = MadConfig(task="memorization").build(seed)
        for index in range(200):
            tokens, targets, _ = (column.tolist() for column in source.row(split, 0, index))
            assert tokens[1::2] == [255] * 16 and targets[::2] == [IGNORE] * 16
            for key, value in zip(tokens[::2], targets[1::2], strict=True):
                assert value_of.setdefault(key, value) == value
    assert set(value_of) == set(range(127)) and set(value_of.values()) <= set(range(127, 255))
    assert len(set(value_of.values())) == 127
    other = MadConfig(task="memorization", map_seed=1).build(0).row("train", 0, 0)
    assert [value_of[key] for key in other.tokens[::2].tolist()] != other.targets[1::2].tolist()


@pytest.mark.parametrize("task", BASELINES)
def test_random_guessing_among_possible_targets_scores_chance(task: str) -> None:
    config = MadConfig(task=task)
    targets = np.array([targets for _, targets in rows(config, "validation")])
    if task == "compression":
        right = [1 / len(np.unique(column)) for column in targets.T]
        assert np.mean(right) == pytest.approx(config.chance, rel=0.1)
    else:
        queried = np.unique(targets[targets != IGNORE])
        assert 1 / len(queried) == pytest.approx(config.chance, rel=0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "compresion"}, r"data\.task=compresion: unknown; did you mean compression\?.*allowed: in_c"),
        ({"noise": 1.0}, r"data\.noise=1\.0: must be at least 0 and below 1"),
        ({"length": 63}, r"data\.length=63: rows of data\.task=in_context_recall are pairs; use data\.length=64"),
        ({"task": "noisy_recall", "vocabulary": 16}, r"data\.vocabulary=16: must be at least 18"),
        ({"task": "selective_copying", "length": 33}, r"data\.length=33: must be at least 34"),
        ({"task": "fuzzy_recall", "vocabulary": 6}, r"data\.vocabulary=6: must be at least 7"),
        ({"train_on": "none"}, r"data\.train_on=none: must be one of all, asked"),
        ({"num_copied": 0}, r"data\.num_copied=0: must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MadConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", BASELINES)
def test_the_smallest_sizes_that_are_allowed_make_rows(task: str) -> None:
    least = {"fuzzy_recall": (7, 18), "noisy_recall": (18, 4), "selective_copying": (3, 34)}
    vocabulary, length = least.get(task, (3, 4))
    for split in SPLITS:
        assert rows(MadConfig(task=task, vocabulary=vocabulary, length=length), split)
