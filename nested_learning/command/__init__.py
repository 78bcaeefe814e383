"""The command line: composing a configuration, defaults from checkpoints, sweeps."""
