"""`python -m nested_learning.lm_eval`: the command line of lm-evaluation-harness with the model type `nested`."""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from traceback import FrameSummary, extract_tb
from typing import Any

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.schema import WEIGHTS
from nested_learning.errors import ConfigError, NestedLearningError
from nested_learning.inference.config import MemoryConfig
from nested_learning.streams import run_process
from nested_learning.typed import check_one_of

NAME = "nested"
PACKAGE = str(Path(__file__).parent)
# flags of the harness that are arguments of the model too, and what the harness passes where they are not given
FLAGS = {"device": "auto", "batch_size": "1", "max_batch_size": ""}


def main(arguments: Sequence[str]) -> int:
    """Run lm-evaluation-harness with `arguments`, such as `--model nested --model_args checkpoint=runs/first`.

    Returns the exit code. Raises ConfigError without the package `lm-eval`, and for what the harness refuses.
    """
    register()
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    setup_logging()
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        harness = HarnessCLI()
        given = harness.parse_args()
        if given.command == "run":
            set_defaults(given)
        harness.execute(given)
    except (LookupError, NotImplementedError, OSError, TypeError, ValueError) as error:
        frames = extract_tb(error.__traceback__)
        # an error in this project, which the harness calls, is no mistake of the user
        if any(frame.filename.startswith(PACKAGE) and frame.filename != __file__ for frame in frames):
            raise
        raise ConfigError(f"lm-evaluation-harness: {describe(error, frames[-1])}") from error
    finally:
        sys.argv = before
    return 0


def set_defaults(given: Namespace) -> None:
    """Set the model and the device where neither the flags nor the file of --config do, in place of hf on cuda:0.

    Raises ConfigError for another model than `nested`.
    """
    from lm_eval.config.evaluate_config import EvaluatorConfig

    file = EvaluatorConfig.load_yaml_config(given.config) if given.config else {}
    given.model = given.model or file.get("model", NAME)
    given.device = given.device or file.get("device", FLAGS["device"])
    if given.model != NAME:
        raise ConfigError(
            f"--model {given.model}: this command evaluates {NAME} only; leave it out, or run lm_eval itself"
        )


def describe(error: Exception, place: FrameSummary) -> str:
    """Say in one line what the harness refused at `place` in its code, and what helps."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        return (
            f"cannot load a file or the data of a task ({text}); check the paths, go online, or give tasks whose data "
            "is here with --include_path"
        )
    if isinstance(error, ValueError):
        return f"{text}; --help lists the flags, `ls tasks` the tasks"
    return f"{type(error).__name__}: {text}, at `{place.line}`; leave out the flag or the key of a task that it names"


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
    from lm_eval.utils import simple_parse_args_string

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
            check_one_of("weights", weights, WEIGHTS)
            num_rows = read_batch_size(batch_size)
            if max_length is not None and type(max_length) is not int:
                raise ConfigError(f"--model_args: max_length={max_length}: give a number of tokens, 2 or more")
            policy = read_policy(str(checkpoint), options)
            trained = open_trained(Path(str(checkpoint)), str(device or "auto"), weights)
            if trained.tokenizer is None:
                raise ConfigError(f"{trained.checkpoint}: has no tokenizer, since its data is not text; use phase=eval")
            super().__init__(
                lambda rows: Session(trained.model, trained.tokenizer, batch=rows, policy=policy),
                trained.tokenizer,
                batch_size=num_rows,
                max_length=max_length,
            )

        def apply_chat_template(self, *_args: Any, **_keywords: Any) -> str:
            raise ConfigError("--apply_chat_template: models of this project have no chat template; leave it out")

        @classmethod
        def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> Any:
            return cls(**merge_arguments(arg_dict, additional_config or {}))

        @classmethod
        def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Any:
            return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    return register_model(NAME)(Nested)


def merge_arguments(arguments: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's `arguments` with those that have `flags` of their own.

    Raises ConfigError for one that is given in both ways, with different values.
    """
    for key, value in flags.items():
        if key in arguments and str(value) not in (str(arguments[key]), FLAGS[key]):
            raise ConfigError(f"--model_args: {key}={arguments[key]}, but --{key} {value}; give one of them")
    return {key: value for key, value in flags.items() if value is not None} | dict(arguments)


def read_policy(checkpoint: str, options: Mapping[str, Any]) -> MemoryConfig:
    """Return the memory policy that the keys `memory` and `memory.<key>` of `options` describe.

    `checkpoint` is the model that is evaluated. Raises ConfigError for other keys.
    """
    unknown = [key for key in options if key != "memory" and not key.startswith("memory.")]
    if unknown:
        raise ConfigError(
            f"--model_args: no argument {unknown[0]}; allowed: checkpoint, device, weights, batch_size, max_length, "
            "memory and memory.<key>"
        )
    lines = [
        "phase=eval",
        f"checkpoint={checkpoint}",
        *(f"{key}={_as_override(value)}" for key, value in options.items()),
    ]
    return make_job(open_option_files(None), lines).config.memory


def read_batch_size(value: str | int) -> int:
    """Return the number of rows; raise ConfigError for `auto`, which is not supported."""
    if not str(value).isdecimal() or int(value) < 1:
        raise ConfigError(f"--batch_size={value}: give a number of 1 or more; it changes no result")
    return int(value)


def _as_override(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_as_override, value))}]"
    return "null" if value is None else str(value)


def run() -> int:
    """Run the arguments of this process; an error is one line. Return the exit code."""
    try:
        return main(sys.argv[1:])
    except NestedLearningError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    run_process(run)
