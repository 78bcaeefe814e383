"""Bytes as printable letters: GPT-2's way, and that of `tokenizers`, to write tokens of bytes into text files."""

from collections.abc import Iterable

from nested_learning.errors import DataError


def byte_letters() -> dict[str, int]:
    """Map 256 letters to the bytes they stand for. Printable latin-1 letters stand for their own byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = byte_letters()
LETTERS = {byte: letter for letter, byte in BYTES.items()}


def to_letters(tokens: Iterable[bytes]) -> list[str]:
    """Write the bytes of each token as letters."""
    return ["".join([LETTERS[byte] for byte in token]) for token in tokens]


def from_letters(tokens: Iterable[str]) -> list[bytes]:
    """Return the bytes of each token written as letters. Raises DataError for a letter that stands for no byte."""
    try:
        return [bytes([BYTES[letter] for letter in token]) for token in tokens]
    except KeyError as error:
        raise DataError(
            f"tokenizer: a token contains {error}, which stands for no byte; it must be byte-level"
        ) from None
