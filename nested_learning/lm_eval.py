"""`python -m nested_learning.lm_eval`: the command line of lm-evaluation-harness with the model type `nested`."""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import ConfigError, NestedLearningError
from nested_learning.inference.config import MemoryConfig

NAME = "nested"


def main(arguments: Sequence[str]) -> int:
    """Run lm-evaluation-harness with `arguments`, such as `--model nested --model_args checkpoint=runs/first`.

    Returns the exit code. Raises ConfigError without the package `lm-eval`.
    """
    register()
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    setup_logging()
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        harness = HarnessCLI()
        harness.execute(harness.parse_args())
    finally:
        sys.argv = before
    return 0


@cache
def register() -> Any:
    """Register this project's models with lm-evaluation-harness as `nested`; return their class.

    Model arguments: `checkpoint`, a run directory or step; `device`, `weights` and `batch_size` as elsewhere;
    `max_length`, the most tokens of a context and its continuation; and options of the memory policy by name, such as
    `memory=memorize` and `memory.steps=2`. Raises ConfigError without the package `lm-eval`.
    """
    from nested_learning.evals.harness.lm import lm_class

    base = lm_class()
    from lm_eval.api.registry import register_model

    class Nested(base):  # type: ignore[misc, valid-type]
        """A checkpoint with the interface of lm-evaluation-harness."""

        def __init__(
            self,
            checkpoint: str | None = None,
            *,
            device: str | None = None,
            weights: str = "model",
            batch_size: str | int = 8,
            max_batch_size: int | None = None,
            max_length: int | None = None,
            **options: Any,
        ) -> None:
            from nested_learning.hub.open_run import open_trained
            from nested_learning.inference.session import Session

            if checkpoint is None:
                raise ConfigError("--model_args: give checkpoint=<run directory or checkpoints/step_*>")
            trained = open_trained(Path(str(checkpoint)), device or "auto", weights)
            if trained.tokenizer is None:
                raise ConfigError(f"{trained.checkpoint}: has no tokenizer, since its data is not text; use phase=eval")
            policy = read_policy(str(checkpoint), options)
            super().__init__(
                lambda rows: Session(trained.model, trained.tokenizer, batch=rows, policy=policy),
                trained.tokenizer,
                batch_size=read_batch_size(batch_size),
                max_length=max_length,
            )

    return register_model(NAME)(Nested)


def read_policy(checkpoint: str, options: Mapping[str, Any]) -> MemoryConfig:
    """Return the memory policy that the keys `memory` and `memory.<key>` of `options` describe.

    `checkpoint` is the model that is evaluated. Raises ConfigError for other keys.
    """
    unknown = [key for key in options if key != "memory" and not key.startswith("memory.")]
    if unknown:
        raise ConfigError(
            f"--model_args: no argument {unknown[0]}; allowed: checkpoint, device, weights, max_length, memory and "
            "memory.<key>"
        )
    lines = [
        "phase=eval",
        f"checkpoint={checkpoint}",
        *(f"{key}={_as_override(value)}" for key, value in options.items()),
    ]
    return make_job(open_option_files(None), lines).config.memory


def read_batch_size(value: str | int) -> int:
    """Return the number of rows; raise ConfigError for `auto`, which is not supported."""
    if (isinstance(value, str) and not value.isdigit()) or int(value) < 1:
        raise ConfigError(f"--batch_size={value}: give a number of 1 or more; it changes no result")
    return int(value)


def _as_override(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_as_override, value))}]"
    return "null" if value is None else str(value)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NestedLearningError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
