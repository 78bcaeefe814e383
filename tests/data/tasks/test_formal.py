"""Formal languages, checked against their definitions and not against how they are drawn."""

import re

import numpy as np
import pytest

from nested_learning.data.source import IGNORE
from nested_learning.data.tasks.formal import FormalConfig
from nested_learning.data.tasks.languages import LANGUAGES
from nested_learning.data.tasks.word_problems import WORD_PROBLEMS
from nested_learning.errors import ConfigError


def balanced(word: str) -> bool:
    """Whether each of two kinds of brackets is balanced."""
    for opening, closing in ("()", "[]"):
        depths = np.cumsum([(letter == opening) - (letter == closing) for letter in word])
        if len(depths) and (depths.min() < 0 or depths[-1]):
            return False
    return True


CONTAINS = {
    "parity": lambda word: word.count("1") % 2 == 0,
    "aa": lambda word: re.fullmatch("(aa)*", word) is not None,
    "abab": lambda word: re.fullmatch("(abab)*", word) is not None,
    "anbn": lambda word: word == "a" * (len(word) // 2) + "b" * (len(word) // 2),
    "anbncn": lambda word: word == "".join(letter * (len(word) // 3) for letter in "abc"),
    "shuffle2": balanced,
}


def beginnings(language: str, longest: int) -> set[str]:
    """Return every prefix of at most `longest` letters, by enumerating all words up to three times as long."""
    letters, found, words = LANGUAGES[language].letters, set(), [""]
    bound = 3 * longest if language in ("aa", "abab", "anbn", "anbncn") else 2 * longest
    if language in ("aa", "abab", "anbn", "anbncn"):
        sizes = range(1, bound + 1)
        units = {"aa": "aa", "abab": "abab"}
        words = [units[language] * n for n in sizes] if language in units else []
        words = words or ["".join(letter * n for letter in letters) for n in sizes]
        return {word[:n] for word in words for n in range(longest + 1)}
    while words:
        word = words.pop()
        found.add(word)
        words += [word + letter for letter in letters if len(word) < longest and completes(language, word + letter)]
    return found


def completes(language: str, start: str) -> bool:
    """Whether some word begins with `start`: all bits do, and brackets that close no more than is open."""
    if language == "parity":
        return True
    return all(start[:n].count(a) >= start[:n].count(b) for a, b in ("()", "[]") for n in range(len(start) + 1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_target_is_the_set_of_all_symbols_that_may_follow(language: str) -> None:
    rules = LANGUAGES[language]
    possible = beginnings(language, 9)
    source = FormalConfig(language=language, min_length=1, max_length=8).build(0)
    for index in range(60):
        row = source.row("train", 0, index)
        word = "".join(rules.letters[token] for token in row.tokens[row.targets != IGNORE])
        assert CONTAINS[language](word)
        for place, target in enumerate(row.targets[: len(word)]):
            start = word[: place + 1]
            follows = {letter for letter in rules.letters if start + letter in possible}
            assert set(rules.follow[target]) == follows | ({"."} if CONTAINS[language](start) else set()), start


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("shortest", "longest"), [(2, 40), (41, 80)])
def test_rows_are_words_of_every_length_between_the_bounds_and_then_blanks(
    language: str, shortest: int, longest: int
) -> None:
    source = FormalConfig(language=language, min_length=shortest, max_length=longest).build(0)
    rules, lengths = LANGUAGES[language], set()
    for index in range(400):
        tokens, targets, _ = source.row("validation" if index < 200 else "train", 0, index % 200)
        length = int((targets != IGNORE).sum())
        assert CONTAINS[language]("".join(rules.letters[token] for token in tokens[:length]))
        assert (tokens[length:] == len(rules.letters)).all() and (targets[length:] == IGNORE).all()
        lengths.add(length)
    assert lengths == set(range(-(-shortest // rules.unit) * rules.unit, longest + 1, rules.unit))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("longest", [40, 80])
def test_every_set_is_a_frequent_target_so_no_constant_prediction_scores_well(language: str, longest: int) -> None:
    source = FormalConfig(language=language, min_length=longest // 2, max_length=longest).build(0)
    targets = np.concatenate([source.row("train", 0, index).targets for index in range(200)])
    counts = np.bincount(targets[targets != IGNORE], minlength=len(LANGUAGES[language].follow))
    shares = counts / counts.sum()
    # one word of a^n b^n ends once
    assert shares.min() > (1 / longest if "n" in language else 0.05) and shares.max() < 0.6


def permute(word: list[str], degree: int) -> str:
    """Apply each permutation of `word` in turn to `degree` items; return where they end."""
    places = list(range(degree))
    for letter in word:
        places = [int(letter[place]) for place in places]
    return "".join(map(str, places))


@pytest.mark.parametrize(("language", "degree", "order"), [("s3", 3, 6), ("a5", 5, 60), ("s5", 5, 120)])
def test_the_target_of_a_word_problem_is_the_product_of_the_letters_so_far(
    language: str, degree: int, order: int
) -> None:
    letters, seen = WORD_PROBLEMS[language].letters, set()
    source = FormalConfig(language=language, min_length=3, max_length=12).build(0)
    assert len(set(letters)) == order and source.vocab_size == order + 1
    for index in range(100):
        row = source.row("train", 0, index)
        word = [letters[token] for token in row.tokens[row.targets != IGNORE]]
        assert [letters[target] for target in row.targets[: len(word)]] == [
            permute(word[: place + 1], degree) for place in range(len(word))
        ]
        seen |= set(row.targets[: len(word)].tolist())
    assert len(seen) > 0.9 * order


def test_mod5_adds_modulo_five() -> None:
    row = FormalConfig(language="mod5", min_length=20, max_length=20).build(0).row("train", 0, 0)
    assert row.targets.tolist() == (np.cumsum(row.tokens) % 5).tolist()
    assert set(row.tokens.tolist()) == set(range(5))


def test_every_set_has_its_own_number() -> None:
    for rules in LANGUAGES.values():
        assert len({frozenset(each) for each in rules.follow}) == len(rules.follow)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"language": "party"}, r"data\.language=party: unknown; did you mean parity\?.*allowed: parity, aa,"),
        ({"min_length": 0}, r"data\.min_length=0: must be at least 1"),
        ({"min_length": 41}, r"data\.max_length=40: .* no word of data\.min_length=41 .* data\.max_length=41"),
        ({"language": "abab", "min_length": 5, "max_length": 7}, r"abab has no word .* at least data\.max_length=8"),
    ],
)
def test_bounds_without_any_word_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FormalConfig(**values)  # type: ignore[arg-type]
