"""Packs that query a fact in a long context, or after the context is removed."""
