"""Choose the tokenizer: bytes, one trained on the text, or one read from a file."""

from collections.abc import Iterable

from nested_learning.data.tokenizers.tokenizer import ByteTokenizer, Tokenizer
from nested_learning.errors import ConfigError

# trained on the training text, with a vocabulary size of the user's choice
TRAINED = ("bpe", "words")


def check_choice(tokenizer: str, vocab_size: int | None, prefix: str = "data.") -> None:
    """Raise ConfigError where `vocab_size` is missing, too small, or fixed by the tokenizer.

    `prefix`: what precedes the names `tokenizer` and `vocab_size` in errors, `data.` or `--`.
    """
    fix = f"{prefix}vocab_size=4096"
    if tokenizer in TRAINED and vocab_size is None:
        raise ConfigError(f"{prefix}tokenizer={tokenizer}: needs a vocabulary size of at least 257, e.g. {fix}")
    if tokenizer not in TRAINED and vocab_size is not None:
        raise ConfigError(
            f"{prefix}vocab_size={vocab_size}: the {tokenizer} tokenizer has a fixed vocabulary; "
            f"leave {prefix}vocab_size out, or use {prefix}tokenizer=bpe"
        )
    if vocab_size is not None and vocab_size < ByteTokenizer.vocab_size:
        raise ConfigError(f"{prefix}vocab_size={vocab_size}: must be at least 257 (256 bytes, <|end|>); {fix}")


def require_tokenizer(tokenizer: str, option: str) -> None:
    """Raise ConfigError or DataError where `tokenizer`, the value of `option`, is a path without a tokenizer."""
    if tokenizer not in ("byte", *TRAINED):
        from nested_learning.data.tokenizers.tokenizer_files import read_tokenizer

        read_tokenizer(tokenizer, option)


def make_tokenizer(tokenizer: str, vocab_size: int | None, texts: Iterable[str], prefix: str = "data.") -> Tokenizer:
    """Return the byte tokenizer, train `bpe` or `words` on `texts`, or open the tokenizer at the path `tokenizer`.

    Raises ConfigError for a path without a tokenizer and for texts that do not fill the vocabulary, DataError for a
    file that is not a byte-level tokenizer.
    """
    if tokenizer == "byte":
        return ByteTokenizer()
    # imported where they are used, so that byte-level runs do not pay for the imports
    if tokenizer == "bpe":
        from nested_learning.data.tokenizers.bpe import train_bpe

        assert vocab_size is not None, "check_choice comes first"
        return train_bpe(texts, vocab_size, f"{prefix}vocab_size")
    if tokenizer == "words":
        from nested_learning.data.tokenizers.words import train_words

        assert vocab_size is not None, "check_choice comes first"
        return train_words(texts, vocab_size, f"{prefix}vocab_size")
    from nested_learning.data.tokenizers.tokenizer_files import read_tokenizer

    return read_tokenizer(tokenizer, f"{prefix}tokenizer")
