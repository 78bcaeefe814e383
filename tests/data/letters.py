"""A text whose tokens are all different, so that a token identifies its position."""

from nested_learning.data.text.packed import PackedText, to_stream
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer


def make_source(seq_len: int = 4, num_tokens: int = 52) -> PackedText:
    """Return a source of rows of distinct tokens, 13 rows by default."""
    tokenizer = ByteTokenizer()
    streams = {"train": to_stream(["".join(map(chr, range(32, 31 + num_tokens)))], tokenizer)}
    return PackedText(streams | {"validation": to_stream(["validation"], tokenizer)}, tokenizer, seq_len)
