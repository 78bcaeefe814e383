"""Bytes as letters: how `tokenizers`, and GPT-2 before it, writes tokens of bytes into files of text."""

from collections.abc import Iterable

from nested_learning.errors import DataError


def byte_letters() -> dict[str, int]:
    """Map letters to the 256 bytes they stand for: printable latin-1 stands for itself."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = byte_letters()
LETTERS = {byte: letter for letter, byte in BYTES.items()}


def to_letters(pieces: Iterable[bytes]) -> list[str]:
    """Write pieces of bytes as letters."""
    return ["".join([LETTERS[byte] for byte in piece]) for piece in pieces]


def from_letters(tokens: Iterable[str]) -> list[bytes]:
    """Return the bytes that the letters of each token stand for. Raises DataError for another letter."""
    try:
        return [bytes([BYTES[letter] for letter in token]) for token in tokens]
    except KeyError as error:
        raise DataError(
            f"tokenizer: {error} in a token is no byte written as a letter; it must be byte-level"
        ) from None
