"""Packs that measure next-token prediction."""
