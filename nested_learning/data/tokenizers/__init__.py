"""Tokenizers: bytes, byte-level BPE, whole words, and tokenizers read from files."""
