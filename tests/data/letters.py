"""Text of which every token is another, so that a token says where it stood."""

from nested_learning.data.text.packed import PackedText, to_stream
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer


def make_source(seq_len: int = 4, num_tokens: int = 52) -> PackedText:
    """Rows of different tokens; with the defaults 13 of them."""
    tokenizer = ByteTokenizer()
    streams = {"train": to_stream(["".join(map(chr, range(32, 31 + num_tokens)))], tokenizer)}
    return PackedText(streams | {"validation": to_stream(["validation"], tokenizer)}, tokenizer, seq_len)
