import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from nested_learning.data.source import IGNORE, SPLITS
from nested_learning.data.text.packed import DocumentsConfig, PackedText, to_stream
from nested_learning.data.text.stdlib import StdlibConfig
from nested_learning.data.tokenizers import tokenizer as tokenizer_module
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError, DataError

END = ByteTokenizer.end


def pack(train: list[str], seq_len: int) -> PackedText:
    tokenizer = ByteTokenizer()
    streams = {"train": to_stream(train, tokenizer), "validation": to_stream(["validation text"], tokenizer)}
    return PackedText(streams, tokenizer, seq_len)


def random_documents(seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("abcé\n", k=rng.randrange(1, 30))) for _ in range(rng.randrange(1, 8))]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("seq_len", [1, 2, 7, 64])
def test_every_transition_of_the_text_is_a_target_exactly_once(seed: int, seq_len: int) -> None:
    documents = random_documents(seed)
    stream = [END]
    for document in documents:
        stream += [*document.encode(), END]
    source = pack(documents, seq_len)
    read: Counter[tuple[int, int]] = Counter()
    for index in range(source.num_rows("train")):
        row = source.row("train", 0, index)
        kept = row.targets != IGNORE
        read.update(zip(row.tokens[kept].tolist(), row.targets[kept].tolist(), strict=True))
    assert read == Counter(pairwise(stream))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("seq_len", [2, 7, 64])
def test_targets_are_the_next_tokens_and_only_the_end_of_the_last_row_has_none(seed: int, seq_len: int) -> None:
    source = pack(random_documents(seed), seq_len)
    rows = [source.row("train", 0, index) for index in range(source.num_rows("train"))]
    for row in rows:
        length = int((row.targets != IGNORE).sum())
        assert length == seq_len or row is rows[-1]
        assert length > 0
        assert (row.targets[:length] != IGNORE).all()
        assert (row.tokens[length:] == END).all()
        assert row.tokens[1:length].tolist() == row.targets[: length - 1].tolist()


def test_documents_count_from_zero_in_each_row_and_begin_at_the_end_token() -> None:
    source = pack(["ab", "cdef", "g"], 4)
    # the stream: end a b end | c d e f | end g end
    rows = [source.row("train", 0, index).documents.tolist() for index in range(3)]
    # the last end is only a target; the padding counts as a document of its own
    assert rows == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]]


def test_a_long_document_encoded_in_parts_is_the_same_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = ["line\n" * 50 + "no end", "\n\n\n"]
    whole = to_stream(documents, ByteTokenizer())
    monkeypatch.setattr(tokenizer_module, "PART_LENGTH", 7)
    assert to_stream(documents, ByteTokenizer()).tolist() == whole.tolist()
    assert len(list(tokenizer_module.split_parts(documents[0]))) > 20


def test_tokens_are_stored_in_two_bytes() -> None:
    assert to_stream(["abc"], ByteTokenizer()).dtype == np.uint16


def test_the_fingerprint_depends_on_the_text_and_not_on_the_length_of_rows() -> None:
    assert pack(["abc", "d"], 2).fingerprint == pack(["abc", "d"], 3).fingerprint
    assert len({pack(d, 2).fingerprint for d in (["abc", "d"], ["abc", "e"], ["ab", "cd"], ["d", "abc"])}) == 4


def config(**values: object) -> DocumentsConfig:
    return StdlibConfig(**values)  # type: ignore[arg-type]


def test_the_smallest_text_that_fills_one_sequence_in_both_splits_is_accepted() -> None:
    train, validation = "t" * 90, "v" * 10
    source = config(seq_len=11, val_fraction=0.1).pack([train, validation], "here", None)
    assert [source.num_rows(split) for split in SPLITS] == [9, 1]
    with pytest.raises(DataError, match=r"here, validation split: 11 tokens .* data\.seq_len=12; .* data\.seq_len=11"):
        config(seq_len=12).pack([train, validation], "here", None)
    with pytest.raises(DataError, match=r"here, train split: 91 .* at most data\.seq_len=91"):
        config(seq_len=100, val_fraction=0.7).pack(["u" * 150, "v" * 90], "here", None)


def test_a_tokenizer_that_is_given_is_used_instead_of_making_one() -> None:
    tokenizer = ByteTokenizer()
    documents = ["some text " * 100, "other text " * 10]
    source = config(seq_len=8, tokenizer="bpe", vocab_size=300).pack(documents, "here", tokenizer)
    assert source.tokenizer is tokenizer


def test_a_tokenizer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.tokenizer=word: must be byte, bpe, words, or the path"):
        config(tokenizer="word").pack(["some text " * 100, "other text " * 10], "here", None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seq_len": 0}, r"data\.seq_len=0: must be at least 1"),
        ({"batch_size": 0}, r"data\.batch_size=0: must be at least 1"),
        ({"val_rows": -1}, r"data\.val_rows=-1: must be at least 1"),
        ({"val_fraction": 0.0}, r"data\.val_fraction=0\.0: must lie between 0 and 1"),
        ({"val_fraction": 1.0}, r"data\.val_fraction=1\.0: must lie between 0 and 1"),
        ({"tokenizer": "bpe"}, r"data\.tokenizer=bpe: needs .* data\.vocab_size=4096"),
        ({"tokenizer": "bpe", "vocab_size": 256}, r"data\.vocab_size=256: must be at least 257"),
        ({"vocab_size": 4096}, r"data\.vocab_size=4096: the byte tokenizer .* data\.tokenizer=bpe"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**values)
