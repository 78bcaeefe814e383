"""Packs that ask for a fact in, or after, a long context."""
