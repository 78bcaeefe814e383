"""Floor 2: modules, one idea a file."""
