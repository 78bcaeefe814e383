"""Packs that ask for a fact in a long context, or after the context is removed."""
