"""Open the loggers of a run: the console and metrics.jsonl always, the chosen ones after them."""

from collections.abc import Mapping

from nested_learning.logger.console import open_console
from nested_learning.logger.jsonl import JsonlLogger, read_lines
from nested_learning.logger.protocol import Fanout, LoggedRun, Logger, LoggerConfig

METRICS = "metrics.jsonl"


def open_loggers(configs: Mapping[str, LoggerConfig], run: LoggedRun) -> Logger:
    """Open every logger of `run` as one; `configs` maps an option's name to its configuration, as in `cfg.logger`.

    Only the first rank opens loggers; the others log into `Fanout()`. Raises ConfigError when a package is missing.
    """
    chosen = [config.build(run) for config in configs.values()]
    jsonl = JsonlLogger(run.directory / METRICS, run.start_step)
    history = read_lines(run.directory / METRICS)
    return Fanout([jsonl, *chosen, open_console(run.total_steps, run.start_step, history)])
