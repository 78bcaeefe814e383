"""Floor 2: torch modules, one idea per file."""
