"""Tests of the optimizer; they share the small model of `shipped.py`."""
