import json
from pathlib import Path

import numpy as np
import pytest

from nested_learning.data.tokenizers.tokenizer import FILE_NAME, ByteTokenizer
from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.errors import DataError


@pytest.mark.parametrize("text", ["", "plain", "é漢🙂\r\n\t", "<|end|>", "\x00\x01\x7f"])
def test_byte_tokens_of_any_text_decode_to_it(text: str) -> None:
    tokenizer = ByteTokenizer()
    tokens = tokenizer.encode(text)
    assert tokens.tolist() == list(text.encode())
    assert tokenizer.end not in tokens
    assert tokenizer.decode(tokens) == text


def test_the_end_token_is_shown_as_its_name_and_counts_no_bytes() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([tokenizer.end, ord("a")]) == "<|end|>a"
    assert tokenizer.token_bytes.sum() == 256
    assert tokenizer.token_bytes[tokenizer.end] == 0
    assert len(tokenizer.token_bytes) == tokenizer.vocab_size


def test_an_incomplete_character_decodes_to_the_replacement_character() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode("aé")[:-1]) == "a�"


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(DataError, match="text at character 2: is not valid unicode"):
        ByteTokenizer().encode("ab\ud800")


def test_a_saved_tokenizer_opens_as_itself(tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path)
    opened = open_tokenizer(tmp_path)
    assert (opened.name, opened.fingerprint) == ("byte", ByteTokenizer().fingerprint)
    assert np.array_equal(opened.token_bytes, ByteTokenizer().token_bytes)


@pytest.mark.parametrize(
    "contents",
    [
        None,
        "{",
        "[]",
        "{}",
        json.dumps({"name": "word"}),
        json.dumps({"name": "bpe"}),
        json.dumps({"name": "bpe", "merges": "ab"}),
        json.dumps({"name": "bpe", "merges": [["a"]]}),
        json.dumps({"name": "bpe", "merges": [["a", 1]]}),
        json.dumps({"name": "bpe", "merges": [["a", "漢"]]}),
        json.dumps({"name": "bpe", "merges": [["ab", "c"], ["a", "b"]]}),
    ],
)
def test_a_missing_or_damaged_tokenizer_is_a_data_error_that_names_it(tmp_path: Path, contents: str | None) -> None:
    if contents is not None:
        (tmp_path / FILE_NAME).write_text(contents, encoding="utf-8")
    with pytest.raises(DataError, match="tokenizer"):
        open_tokenizer(tmp_path)
