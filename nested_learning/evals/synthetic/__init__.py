"""Packs for models that were trained on a synthetic task."""
