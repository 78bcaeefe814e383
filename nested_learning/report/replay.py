"""metrics.jsonl is the truth: W&B and TensorBoard are made of it, again whenever they have missed something."""

import shutil
from collections.abc import Callable
from pathlib import Path

from nested_learning.checkpoint import CONFIG, read_config
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import DataError
from nested_learning.logger.build import METRICS
from nested_learning.logger.jsonl import read_lines
from nested_learning.logger.protocol import LoggedRun, Logger
from nested_learning.logger.tensorboard import FOLDER, TensorboardConfig
from nested_learning.logger.wandb import ID_FILE, WandbConfig


def replay(run: Path, to: str) -> int:
    """Write all metrics of a run again to `to`, a key of `PROJECTIONS`; return how many lines there were.

    What was there before is replaced; of W&B, which keeps it, by a run with a new id. Raises DataError for a directory
    that is no run.
    """
    if not (run / CONFIG).is_file() or not (run / METRICS).is_file():
        raise DataError(f"{run}: no run (no {CONFIG} and {METRICS}); give the directory of one")
    config, lines = read_config(run), read_lines(run / METRICS)
    logger = PROJECTIONS[to](LoggedRun(run, run.name, config, config["steps"], 0))
    for line in lines:
        logger.log(line["step"], {name: value for name, value in line.items() if name != "step" and value is not None})
    logger.close()
    return len(lines)


def _tensorboard(run: LoggedRun) -> Logger:
    shutil.rmtree(run.directory / FOLDER, ignore_errors=True)
    return TensorboardConfig(name="tensorboard").build(run)


def _wandb(run: LoggedRun) -> Logger:
    (run.directory / ID_FILE).unlink(missing_ok=True)
    chosen = run.config["logger"]
    # a run without W&B goes where the shipped option says
    options = chosen["wandb"] if "wandb" in chosen else open_option_files(None).read("logger/wandb")
    return WandbConfig(**options).build(run)


PROJECTIONS: dict[str, Callable[[LoggedRun], Logger]] = {"tensorboard": _tensorboard, "wandb": _wandb}
