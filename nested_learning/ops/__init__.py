"""Floor 1: pure tensor functions; every fast path stands beside a `naive_` twin that reads like its equation."""
