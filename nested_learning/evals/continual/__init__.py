"""Packs that measure forgetting."""
