"""Tokenizers: bytes, BPE, whole words, and tokenizers that exist as files."""
