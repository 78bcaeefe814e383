"""Where the figures of a run go: the console and metrics.jsonl always, W&B and TensorBoard when asked for."""
