"""Needles are at their depth, prompts have the requested length, and each task is the one that RULER defines."""

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nested_learning.data.source import IGNORE
from nested_learning.data.tasks.haystack import NOISE, Haystack, essay, hide, noise, sentences
from nested_learning.data.tasks.needle_tasks import ALL_TASKS, PASSKEY, TASKS
from nested_learning.data.tasks.needles import NeedlesConfig, all_words
from nested_learning.data.tasks.prompts import Prompt, Prompts
from nested_learning.data.tokenizers.bpe import train_bpe
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer, Tokenizer
from nested_learning.errors import ConfigError, DataError

BOOK = "".join(f"It was day {i} of a long voyage, stated she. Did he hear? " for i in range(60))
TOKENIZERS: dict[str, Tokenizer] = {
    "byte": ByteTokenizer(),
    "words": all_words(),
    "bpe": train_bpe([BOOK, NOISE], 290),
}
# (keys, values per key, queried keys) of RULER's synthetic.yaml, and the pattern of values
SHAPES = {
    "niah_single_1": (1, 1, 1, r"\d{7}"),
    "niah_single_2": (1, 1, 1, r"\d{7}"),
    "niah_single_3": (1, 1, 1, r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "niah_multikey_1": (4, 1, 1, r"\d{7}"),
    "niah_multikey_2": (None, 1, 1, r"\d{7}"),
    "niah_multikey_3": (None, 1, 1, r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "niah_multivalue": (1, 4, 1, r"\d{7}"),
    "niah_multiquery": (4, 1, 4, r"\d{7}"),
}


def make(name: str, length: int, depth: float = 0.5, tokenizer: str = "byte", number: int = 0) -> tuple[Prompt, str]:
    """Make a prompt with 20 tokens reserved for the answer; return it, and its context as text."""
    prompt = prompts(name, tokenizer).make(np.random.default_rng(number), length, depth, 20)
    return prompt, TOKENIZERS[tokenizer].decode(prompt.context)


@cache
def prompts(name: str, tokenizer: str) -> Prompts:
    """The text of a book, read once for all tests."""
    return Prompts(ALL_TASKS[name], TOKENIZERS[tokenizer], [BOOK])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", ALL_TASKS)
def test_a_prompt_has_exactly_the_requested_length(name: str, tokenizer: str) -> None:
    for number, length in enumerate((1200, 1777, 5001)):
        prompt, _ = make(name, length, tokenizer=tokenizer, number=number)
        assert len(prompt.context) + len(prompt.question) + 20 == length


@pytest.mark.parametrize("name", TASKS)
def test_a_task_hides_and_queries_as_many_needles_as_ruler(name: str) -> None:
    keys, each, queried, value = SHAPES[name]
    prompt, text = make(name, 4000)
    stated = re.findall(r"One of the special magic \w+ for ([\w-]+) is: ([\w-]+)\.", text)
    if keys is not None:
        assert len({key for key, _ in stated}) == keys
        assert len(stated) == keys * each
    question = ByteTokenizer().decode(prompt.question)
    wanted = [key for key in dict(stated) if key in question]
    assert len(wanted) == queried
    assert sorted(prompt.values) == sorted(found for key, found in stated if key in wanted)
    assert all(re.fullmatch(value, found) for found in prompt.values)
    assert ByteTokenizer().decode(prompt.answer) == f" {', '.join(prompt.values)}"
    plural = each * queried > 1
    assert question.endswith("mentioned in the provided text " + ("are" if plural else "is"))
    assert text.startswith("Some special magic" if plural else "A special magic")


def test_in_a_haystack_of_needles_every_line_is_one() -> None:
    prompt, text = make("niah_multikey_2", 4000)
    # the first line is cut at its beginning
    lines = text.splitlines()[2:]
    assert len(lines) > 20
    assert all(re.fullmatch(r"One of the special magic numbers for [\w-]+ is: \d{7}\.", line) for line in lines)
    assert sum(prompt.values[0] in line for line in lines) == 1
    # hard candidates: other values of the same text
    assert all(candidate in text for candidate in prompt.candidates)


@pytest.mark.parametrize("name", ["niah_single_1", "niah_single_2", "niah_multikey_1", PASSKEY])
@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 1.0])
def test_the_needle_is_at_its_depth(name: str, depth: float) -> None:
    for number in range(5):
        prompt, text = make(name, 6000, depth, number=number)
        opening = len(ALL_TASKS[name].opening())
        place = text.index(prompt.values[0]) - opening
        # a sentence before it may be as long as a line of noise
        assert abs(place / (len(text) - opening) - depth) < 0.06


def test_a_needle_is_between_two_sentences() -> None:
    for number in range(20):
        _, text = make("niah_single_1", 1500, number / 20, number=number)
        before, after = re.split(r"One of the special .*?\.\n", text)
        assert before.endswith(("\n", "."))
        assert after == "" or NOISE.startswith(after[:20].split("\n")[0]) or number == 0


def test_nine_distinct_candidates_include_the_correct_one_at_a_random_index() -> None:
    places = set()
    for number in range(40):
        prompt, _ = make("niah_multiquery", 700, number=number)
        assert len(set(prompt.candidates)) == 9
        assert prompt.candidates[prompt.right] == prompt.values[0]
        # another queried value is never a wrong candidate
        assert set(prompt.candidates) & set(prompt.values) == {prompt.values[0]}
        places.add(prompt.right)
    assert places == set(range(9))


def test_the_pass_key_is_stated_twice_and_queried() -> None:
    prompt, text = make(PASSKEY, 1000)
    (key,) = prompt.values
    assert re.search(rf"The pass key is {key}\. Remember it\. {key} is the pass key\.", text)
    assert re.fullmatch(r"\d{5}", key)
    assert ByteTokenizer().decode(prompt.question) == "What is the pass key? The pass key is"


def test_the_error_for_a_short_prompt_names_the_least_length() -> None:
    with pytest.raises(DataError, match="100 tokens are too few for needles and question; use at least") as error:
        Prompts(TASKS["niah_single_1"], ByteTokenizer()).make(np.random.default_rng(0), 120, 0.5, 20)
    least = int(str(error.value).split()[-1])
    Prompts(TASKS["niah_single_1"], ByteTokenizer()).make(np.random.default_rng(0), least + 20, 0.5, 20)


def test_a_haystack_repeats_and_is_split_between_sentences() -> None:
    hay = Haystack(np.array(each) for each in ([1, 2, 3], [4, 5], [6]))
    for number in range(50):
        parts = hay.sample(20, [0.0, 0.3, 0.9, 1.0], np.random.default_rng(number))
        text = np.concatenate(parts)
        assert len(text) == 20 and len(parts) == 5
        assert set(pairwise(text.tolist())) <= {(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 1)}
        # the last part is empty at depth 1, and every part ends with a complete sentence, except for the cut first one
        assert len(parts[-1]) == 0
        assert all(part[-1] in (3, 5, 6) for part in parts[1:] if len(part))
    hidden = hide([np.array([1]), np.array([2, 3])], [np.array([9])])
    assert hidden.tolist() == [1, 9, 2, 3]


def test_books_are_split_into_sentences() -> None:
    assert sentences('He stated: "No."  Then he\nleft! Why? Mr X.') == [
        'He stated: "No."',
        "Then he left!",
        "Why?",
        "Mr X.",
    ]
    with pytest.raises(DataError, match="no sentence"):
        essay(["  "], ByteTokenizer())
    assert noise(ByteTokenizer()).ends.tolist() == [len(NOISE) + 1]


def test_rows_are_filled_with_documents_whose_answers_are_the_targets() -> None:
    source = NeedlesConfig(digits=3, seq_len=300, min_length=90).build(0)
    words = source.tokenizer
    assert words is not None
    for index in range(20):
        row = source.row("train", 0, index)
        for number in range(row.documents.max() + 1):
            inside = row.documents == number
            text = words.decode(row.tokens[inside][1:])
            assert row.tokens[inside][0] == words.end
            targets = row.targets[inside]
            if (targets == IGNORE).all():
                assert set(row.tokens[inside]) == {words.end}
                continue
            answer = targets[targets != IGNORE]
            assert answer[-1] == words.end
            value = words.decode(answer[:-1])
            # once in the needle and once in the answer, which follows the question
            assert text.endswith(f"text is{value}") and text.count(value) == 2
            assert (targets[-len(answer) :] == answer).all()


def test_every_word_of_the_needle_tasks_is_one_token() -> None:
    words = all_words()
    assert words.vocab_size <= 512
    prompt, text = make("niah_single_1", 800, tokenizer="words")
    # only digits, punctuation and the like are encoded byte by byte
    assert not any(chr(token).isalpha() for token in prompt.context.tolist() if token < 256)
    assert "The grass is green." in text


def test_books_are_needed_where_a_task_has_an_essay(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is missing: one of data.tasks needs an essay haystack"):
        NeedlesConfig(tasks=["niah_single_2"])
    (tmp_path / "book.txt").write_text(BOOK)
    config = NeedlesConfig(tasks=["niah_single_2"], path=str(tmp_path / "book.txt"))
    first = config.build(0)
    (tmp_path / "book.txt").write_text(BOOK.replace("day", "dawn"))
    assert config.build(0).fingerprint != first.fingerprint != replace(config, digits=3).build(0).fingerprint
