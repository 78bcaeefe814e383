"""Packs for the trained synthetic tasks."""
