"""The word tokenizer is lossless, and opens again from its file."""

from pathlib import Path

import pytest

from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.data.tokenizers.words import WordTokenizer, train_words
from nested_learning.errors import ConfigError, DataError

TEXT = "The sky is blue, the sky is wide. Façade-sky 42 Ωmega\n sky sky\t日本"


@pytest.mark.parametrize("words", [[], ["The", " sky", "sky"], [" is", " blue", "Façade", " Ωmega", " sky"]])
def test_text_and_bytes_round_trip(words: list[str]) -> None:
    tokenizer = WordTokenizer(words)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    data = TEXT.encode() + b"\xff\xfe sky \x80"
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data
    assert tokenizer.token_bytes[tokenizer.encode(TEXT)].sum() == len(TEXT.encode())
    assert tokenizer.end not in tokenizer.encode("<|end|>")


def test_a_known_word_is_one_token_and_digits_are_one_each() -> None:
    tokenizer = WordTokenizer([" sky", "The"])
    words = [tokenizer.decode([token]) for token in tokenizer.encode("The sky 42sky").tolist()]
    assert words == ["The", " sky", " ", "4", "2", "s", "k", "y"]


def test_a_saved_word_tokenizer_opens_as_itself(tmp_path: Path) -> None:
    tokenizer = WordTokenizer([" sky", "The"])
    tokenizer.save(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint != WordTokenizer(["The", " sky"]).fingerprint
    assert (again.encode(TEXT) == tokenizer.encode(TEXT)).all()


def test_the_most_frequent_words_become_tokens() -> None:
    assert train_words(["b b a a c", " b"], 259).words == [" a", " b"]
    with pytest.raises(ConfigError, match=r"data\.vocab_size=300: the training text has only 2 different words"):
        train_words(["a b"], 300)


@pytest.mark.parametrize("words", [["a b"], ["a", "a"], ["4"], [""]])
def test_a_string_that_is_not_a_word_is_refused(words: list[str]) -> None:
    with pytest.raises(DataError, match="words must be letters and occur once"):
        WordTokenizer(words)
