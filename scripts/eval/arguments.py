"""Command-line flags with the names that papers use, shared by the scripts in this folder.

Every flag stands for an override of train.py, which does the work: the results are the same.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

from nested_learning.command import main as cli
from nested_learning.config.option_files import open_option_files
from nested_learning.config.registry import CHOICES
from nested_learning.errors import ConfigError
from nested_learning.inference.config import METRICS

# flag -> the key that it sets, and what it means
EVERY = {
    "seed": ("seed", "which examples are drawn"),
    "device": ("device", "auto, cpu, cuda, cuda:<number> or mps"),
    "weights": ("weights", "model, or ema: the averages that optim.ema made"),
    "report-name": ("name", "added to the file names of the reports, so that they replace no others"),
}
MEMORIZE = {
    "memorize-steps": ("memory.steps", "how often a context is read"),
    "memory-lr": ("memory.lr", "what each write is multiplied by; 1: what the level learned"),
    "memorize-chunk": ("memory.chunk", "tokens between two writes"),
    "surprise-threshold": ("memory.surprise_threshold", "write only what surprises as much; null: all"),
    "surprise-metric": ("memory.surprise_metric", f"one of {', '.join(METRICS)}"),
}
# how other programs call the levels of the continuum memory
CMS = "cms_"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise ConfigError in place of printing the usage."""
        raise ConfigError(f"{message}; --help lists all")


def main(pack: str, about: str, arguments: Sequence[str] | None = None) -> int:
    """Evaluate a trained model on `pack`; return the exit status. `about` is the docstring of the script."""
    try:
        lines = overrides(pack, about, sys.argv[1:] if arguments is None else arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return cli.main(lines)


def overrides(pack: str, about: str, arguments: Sequence[str]) -> list[str]:
    """Return the overrides that the flags `arguments` stand for. Raises ConfigError for flags that make no sense."""
    given = vars(parser_of(pack, about).parse_intermixed_args(arguments))
    checkpoint, more, policy, memorizes = (given.pop(key) for key in ("checkpoint", "overrides", "memory", "memorize"))
    if memorizes and policy is not None:
        raise ConfigError("--memorize is a policy of its own: leave --memory out")
    policy = "memorize" if memorizes else policy or "online"
    lines = ["phase=eval", f"checkpoint={quoted(checkpoint)}", f"evals=[{pack}]", f"memory={policy}"]
    for flag, line in memorizing(given):
        if not memorizes:
            raise ConfigError(f"{flag} is for --memorize: add it, or leave {flag} out")
        lines.append(line)
    for flag, (key, _) in EVERY.items():
        if (value := given.pop(flag.replace("-", "_"))) is not None:
            lines.append(f"{key}={value}")
    return [*lines, *(options_of(pack)[key].write(value) for key, value in given.items() if value is not None), *more]


def memorizing(given: dict[str, Any]) -> list[tuple[str, str]]:
    """Take the flags of --memorize out of `given`; return those that are set, each with its override."""
    found = []
    for flag, (key, _) in MEMORIZE.items():
        if (value := given.pop(flag.replace("-", "_"))) is not None:
            found.append((f"--{flag}", f"{key}={value}"))
    if (paths := given.pop("memorize_paths")) is not None:
        levels = [path.strip().removeprefix(CMS) for path in paths.split(",")]
        found.append(("--memorize-paths", f"memory.levels=[{','.join(levels)}]"))
    if (layers := given.pop("memorize_layers")) is not None:
        found.append(("--memorize-layers", f"memory.layers=[{layers}]"))
    if given.pop("memorize_no_reset"):
        found.append(("--memorize-no-reset", "memory.reset=carry"))
    return found


def parser_of(pack: str, about: str) -> argparse.ArgumentParser:
    """Make the parser: the flags of all scripts, then one for each option of `pack`, with what it is by default."""
    parser = _Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="any setting of train.py")
    parser.add_argument("--checkpoint", required=True, help="a run, or one of its checkpoints/step_*")
    parser.add_argument("--memory", choices=["online", "frozen"], help="what memories do while they read")
    for flag, (key, meaning) in EVERY.items():
        parser.add_argument(f"--{flag}", metavar=key.upper(), help=meaning)
    memorize = parser.add_argument_group("memorization", "memory=online is evaluated too, on the same examples")
    memorize.add_argument("--memorize", action="store_true", help="memorize the context before the question")
    for flag, (key, meaning) in MEMORIZE.items():
        memorize.add_argument(f"--{flag}", metavar=key.rpartition(".")[2].upper(), help=meaning)
    memorize.add_argument("--memorize-paths", metavar="A,B", help=f"all, titan, or levels such as {CMS}fast")
    memorize.add_argument("--memorize-layers", metavar="I,J", help="numbers of layers, from 0; without it: all")
    memorize.add_argument("--memorize-no-reset", action="store_true", help="keep what one example wrote for the next")
    options = parser.add_argument_group(f"evals.{pack}")
    for key, option in options_of(pack).items():
        default = json.dumps(option.default).replace("%", "%%")
        options.add_argument(
            f"--{key.replace('_', '-')}", metavar="A,B" if option.is_list else "X", help=f"by default {default}"
        )
    return parser


class Option:
    """An option of a pack: its field, and its value in the pack's file."""

    def __init__(self, pack: str, field: Field[Any], hint: Any, default: Any) -> None:
        self.key, self.hint, self.default = f"evals.{pack}.{field.name}", hint, default
        kinds = [kind for kind in get_args(hint) if kind is not NoneType] or [hint]
        self.is_text, self.is_list = str in kinds, any("list" in str(kind) for kind in kinds)

    def write(self, value: str) -> str:
        """Return the override that gives the option its `value`."""
        if self.is_list:
            return f"{self.key}={value if value == 'null' or value.startswith('[') else f'[{value}]'}"
        return f"{self.key}={quoted(value) if self.is_text else value}"


def options_of(pack: str) -> dict[str, Option]:
    """Return the options of `pack`; none for one that does not exist, which train.py says."""
    if pack not in CHOICES["evals"]:
        return {}
    kind, written = CHOICES["evals"][pack], open_option_files(None).read(f"evals/{pack}")
    hints = get_type_hints(kind)
    found = {field.name: Option(pack, field, hints[field.name], written[field.name]) for field in fields(kind)}
    return {key: option for key, option in found.items() if key != "name"}


def quoted(value: str) -> str:
    """Return `value` such that commas, spaces and brackets in it mean themselves; null stays null."""
    return value if value == "null" else "'" + value.replace("'", r"\'") + "'"
