"""Pure tensor functions: memories, gates, rules. Every fast path has a `naive_` twin that reads like its equation."""
