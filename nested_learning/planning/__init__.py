"""Estimates of a run before it starts: FLOPs, memory, hardware."""
