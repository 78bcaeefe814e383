import pytest

from nested_learning.data.source import IGNORE
from nested_learning.data.tasks.facts import BEFORE_VALUE, LENGTH, VALUES, WORDS, FactsConfig
from nested_learning.errors import ConfigError


def sentences(config: FactsConfig, index: int) -> tuple[list[list[str]], list[list[int]]]:
    """Return the words and the targets of a row, sentence by sentence."""
    tokens, targets, _ = (column.reshape(-1, LENGTH).tolist() for column in config.build(0).row("train", 0, index))
    return [[WORDS[token] for token in line] for line in tokens], targets


@pytest.mark.parametrize("changes", [0.0, 0.5])
def test_a_scored_value_is_the_one_stated_last_for_the_same_fact(changes: float) -> None:
    config = FactsConfig(train_on="asked", changes=changes, num_sentences=12)
    num_scored = 0
    for index in range(50):
        stated: dict[tuple[str, ...], str] = {}
        for words, targets in zip(*sentences(config, index), strict=True):
            key, value = tuple(words[: BEFORE_VALUE + 1]), words[BEFORE_VALUE + 1]
            scored = [number for number, target in enumerate(targets) if target != IGNORE]
            assert scored in ([], [BEFORE_VALUE])
            if scored:
                num_scored += 1
                assert value == stated[key] == WORDS[targets[BEFORE_VALUE]]
            elif not changes:
                assert key not in stated
            stated[key] = value
        assert config.min_facts <= len(stated) <= config.num_facts
    assert num_scored > 50


def test_all_next_words_are_targets() -> None:
    tokens, targets, _ = FactsConfig().build(0).row("train", 0, 0)
    assert targets[:-1].tolist() == tokens[1:].tolist() and targets[-1] == IGNORE


def test_every_number_of_facts_and_every_value_occurs() -> None:
    config, counts, values = FactsConfig(min_facts=2, num_facts=4), set(), set()
    for index in range(200):
        stated, _ = sentences(config, index)
        counts.add(len({tuple(words[: BEFORE_VALUE + 1]) for words in stated}))
        values |= {words[BEFORE_VALUE + 1] for words in stated}
    assert counts == {2, 3, 4} and values == set(VALUES)


def test_every_word_is_one_token() -> None:
    assert len(set(WORDS)) == len(WORDS) == FactsConfig().vocab_size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_facts": 0}, r"data\.min_facts=0: must be at least 1"),
        ({"num_facts": 2, "min_facts": 3}, r"data\.num_facts=2: must be at least 3"),
        ({"num_sentences": 4}, r"data\.num_sentences=4: must be at least 5"),
        ({"changes": 1.0}, r"data\.changes=1\.0: must be at least 0 and below 1"),
        ({"train_on": "some"}, r"data\.train_on=some: must be one of all, asked"),
        ({"num_facts": 577, "num_sentences": 600}, r"data\.num_facts=577: there are only 576 facts"),
    ],
)
def test_options_that_contradict_each_other_are_refused_by_name(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FactsConfig(**values)  # type: ignore[arg-type]
