"""Bytes as letters: how `tokenizers`, and GPT-2 before it, writes tokens of bytes into files of text."""

from nested_learning.errors import DataError


def byte_letters() -> dict[str, int]:
    """Map letters to the 256 bytes they stand for: printable latin-1 stands for itself."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = byte_letters()
LETTERS = {byte: letter for letter, byte in BYTES.items()}


def to_letters(piece: bytes) -> str:
    """Write bytes as letters."""
    return "".join([LETTERS[byte] for byte in piece])


def from_letters(token: str) -> bytes:
    """Return the bytes that letters stand for. Raises DataError for another letter."""
    try:
        return bytes([BYTES[letter] for letter in token])
    except KeyError:
        raise DataError(f"tokenizer: the token {token!r} is not written in bytes; it must be byte-level") from None
