"""Synthetic tasks: recall, copying, formal languages, needles, stories, classes."""
