import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from nested_learning.data.tokenizers import tokenizer as tokenizer_module
from nested_learning.data.tokenizers.bpe import BpeTokenizer, train_bpe
from nested_learning.data.tokenizers.byte_letters import byte_letters
from nested_learning.data.tokenizers.tokenizer import FILE_NAME
from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.errors import ConfigError, DataError

TEXTS = [
    "the cat sat on the mat, the cat that sat on the other mat, whatever the other cat might be sitting on. " * 5,
    "def hello(name): return f'hello {name} <|end|>'\nclass Greeting: pass\n" * 5,
]


@pytest.fixture(scope="module")
def tokenizer() -> BpeTokenizer:
    return train_bpe(TEXTS, 300)


def random_text(rng: random.Random) -> str:
    ranges = [(0, 128), (0, 0xD800), (0xE000, 0x110000)]
    return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(60)))


def test_any_text_round_trips_and_its_bytes_are_counted(tokenizer: BpeTokenizer) -> None:
    rng = random.Random(0)
    for text in ["", "<|end|>", "\r\n  \t\0", *TEXTS, *(random_text(rng) for _ in range(200))]:
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert tokenizer.token_bytes[tokens].sum() == len(text.encode())


def test_a_long_text_encoded_in_parts_round_trips(tokenizer: BpeTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "PART_LENGTH", 10)
    text = "".join(TEXTS) + "a line without an end"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    whole = np.concatenate([tokenizer.encode(part) for part in tokenizer_module.split_parts(text)])
    assert np.array_equal(whole, tokenizer.encode(text))


def test_the_name_of_the_end_token_in_a_text_is_ordinary_text(tokenizer: BpeTokenizer) -> None:
    assert tokenizer.end == tokenizer.vocab_size - 1 == 299
    assert tokenizer.end not in tokenizer.encode("a <|end|> b <|end|>")
    assert tokenizer.decode([tokenizer.end]) == "<|end|>"
    assert tokenizer.token_bytes[tokenizer.end] == 0


def test_training_shortens_text_and_is_deterministic(tokenizer: BpeTokenizer) -> None:
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0]) / 2
    again = train_bpe(TEXTS, 300)
    assert again.merges == tokenizer.merges
    assert again.fingerprint == tokenizer.fingerprint
    assert train_bpe(TEXTS, 290).fingerprint != tokenizer.fingerprint


def test_the_smallest_vocabulary_is_bytes_and_the_end() -> None:
    tokenizer = train_bpe(TEXTS, 257)
    assert tokenizer.merges == []
    assert len(tokenizer.encode("é")) == 2


def test_a_saved_tokenizer_opens_as_itself_and_is_plain_json(tokenizer: BpeTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert json.loads((tmp_path / FILE_NAME).read_text(encoding="utf-8"))["model"]["type"] == "BPE"
    opened = open_tokenizer(tmp_path)
    assert opened.fingerprint == tokenizer.fingerprint
    assert opened.vocab_size == tokenizer.vocab_size
    for text in TEXTS:
        assert np.array_equal(opened.encode(text), tokenizer.encode(text))


def test_a_token_made_in_two_ways_is_one_token() -> None:
    tokenizer = BpeTokenizer([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("abc", "d")])
    assert tokenizer.vocab_size == 256 + 4 + 1
    assert [tokenizer.decode([token]) for token in tokenizer.encode("abcdabc").tolist()] == ["abcd", "abc"]


@pytest.mark.parametrize("vocab_size", [0, 256])
def test_a_vocabulary_too_small_for_the_bytes_is_refused(vocab_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.vocab_size={vocab_size}: must be at least 257"):
        train_bpe(TEXTS, vocab_size)


def test_a_vocabulary_larger_than_the_text_can_fill_is_refused_with_the_largest_one() -> None:
    with pytest.raises(ConfigError, match=r"fills only 258; use a longer text, or data\.vocab_size=258"):
        train_bpe(["ab"], 400)
    assert train_bpe(["ab"], 258).vocab_size == 258


def test_a_lone_surrogate_is_refused(tokenizer: BpeTokenizer) -> None:
    with pytest.raises(DataError, match="not valid unicode"):
        tokenizer.encode("\udfff")


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[data\]', or use data\.tokenizer=byte"):
        train_bpe(TEXTS, 300)


def test_the_letters_of_bytes_are_those_of_the_library() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    assert set(byte_letters()) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_letters().values()) == list(range(256))
