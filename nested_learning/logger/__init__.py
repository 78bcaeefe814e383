"""Loggers of metrics: the console and metrics.jsonl always, W&B and TensorBoard when configured."""
