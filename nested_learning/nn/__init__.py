"""Torch modules, one idea per file: attention, memories, levels, the language model."""
