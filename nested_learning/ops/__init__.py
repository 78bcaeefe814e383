"""Floor 1: pure tensor functions; every fast path has a `naive_` twin that reads like its equation."""
