"""What a run costs before it starts: FLOPs, memory, hardware."""
