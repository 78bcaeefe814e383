"""Packs that run standard benchmarks through lm-evaluation-harness."""
