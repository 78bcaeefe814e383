"""Make mistakes drawn from a seed, on the command line and in configurations; check that each is one line.

    python -m scripts.benchmarks.mistakes                   # reports/mistakes.md
    python -m scripts.benchmarks.mistakes --lines 100 --values 1000 --seed 7 --report none

Keys and types are those that the configuration classes declare, so that a new key is tried too. Of a command line it is
checked that
  - it ends with status 2 and one line on stderr, which begins with `error:` and asks for no report of a fault;
  - it takes less than 10 CPU-seconds, and leaves no file behind.
Of a value that its type cannot have: the configuration is refused in one line that has the name of the key.
"""

import argparse
import contextlib
import io
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from nested_learning.command import main as cli
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.registry import CHOICES, LISTED
from nested_learning.config.schema import Config, convert_config
from nested_learning.errors import ConfigError
from nested_learning.report.text import command_line
from nested_learning.typed import Count, DigitCount, LayerCount, Length, PathText, ProcessCount, Unbounded

REPORT = Path(__file__).parents[2] / "reports" / "mistakes.md"
SECONDS = 10
FILES = open_option_files(None)
TEXT = {"name": "text", "path": "text.py"}
# what the options of data need besides their files
NEEDED: dict[str, dict[str, Any]] = {
    "text": {"path": "text.py"},
    "tokens": {"path": "shards"},
    "babilong": {"path": "en-10k"},
    "classes": {"path": "labelled.jsonl", "num_tasks": 2},
    "rows": {"path": "rows.jsonl", "vocab_size": 64},
    "sequence": {"sources": {"a": TEXT, "b": {"name": "stdlib"}}},
    "mixture": {"sources": {"a": TEXT}, "weights": {"a": 1}},
}
COUNTS = (Count, DigitCount, LayerCount, Length, ProcessCount)
# values that a key of this type cannot have, whatever it means
IMPOSSIBLE: dict[Any, list[Any]] = {
    int: [2**63, -(2**70), 1.5],
    **{kind: [2**31, 2**63, -(2**70), 1.5] for kind in COUNTS},
    float: [math.nan, math.inf, -math.inf, 10**400],
    Unbounded: [math.nan, 10**400],
    str: ["\0", "a\udc80", 3],
    PathText: ["", "\0", "a\udc80", "x" * 300, "a/" * 3000, "~no-such-user/x", 3],
    bool: [1, "yes"],
}
# values that are mistakes for most keys of this type, but not for all
UNWISE: dict[Any, list[Any]] = {
    int: [0, -1, 2**31, 2**62],
    **{kind: [0, -1] for kind in COUNTS},
    float: [-1.0, 0.0, 1e-320, 1e-38, 1e38, 1e308],
    Unbounded: [-1.0, 1e38, math.inf],
    str: ["", " ", "x" * 300, "a\nb", "a/b", ".."],
    PathText: ["missing", " ", "a\nb", "..", "/dev/null"],
    bool: [],
}


class Key(NamedTuple):
    """A key of a configuration: its names and list positions from the root, and the types that it may have."""

    path: tuple[str | int, ...]
    kinds: tuple[Any, ...]


@cache
def configurations() -> list[tuple[str, Config]]:
    """Return the name of a group and a small configuration, for an option of each class; the first is for all."""
    tiny = ["model.dim=16", "model.num_layers=1", "model.num_heads=2", "steps=2", "device=cpu", "evals=[]", "name=run"]
    root = asdict(make_job(FILES, ["model=transformer", "data=recall", "data.gap=4", *tiny]).config)
    made = [("", convert_config(root))]
    seen: set[type] = set()
    for group, options in CHOICES.items():
        for option, kind in options.items():
            if kind in seen:
                continue
            seen.add(kind)
            file = FILES.find(f"{group}/{option}")
            assert file is not None
            values: Any = OmegaConf.to_container(OmegaConf.load(file))
            values |= NEEDED.get(option, {}) if group == "data" else {}
            given = {group: {option: values} if group in LISTED else values}
            given |= {"checkpoint": "run"} if group == "phase" and option != "train" else {}
            made.append((group, convert_config(root | given)))
    return made


def keys(config: Any, path: tuple[str | int, ...] = ()) -> Iterator[Key]:
    """Yield every key of `config` and of what it holds, except the `name` of an option."""
    for name, kind in get_type_hints(type(config), include_extras=True).items():
        if name not in {field.name for field in fields(config)} or (path and name == "name"):
            continue
        value, here = vars(config)[name], (*path, name)
        kinds = [each for each in _options(kind) if each is not NoneType]
        if not any(is_dataclass(each) for each in kinds):
            yield Key(here, tuple(kinds))
        yield from _below(value, here)


def impossible(key: Key) -> Iterator[Any]:
    """Yield values that `key` must refuse."""
    for kind in key.kinds:
        yield from _values(kind, IMPOSSIBLE)


def unwise(key: Key) -> Iterator[Any]:
    """Yield values that `key` may refuse."""
    for kind in key.kinds:
        yield from _values(kind, UNWISE)


def replaced(values: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return plain `values` with the entry at `path` replaced."""
    if not path:
        return value
    first, *rest = path
    if isinstance(values, list):
        return [replaced(each, tuple(rest), value) if index == first else each for index, each in enumerate(values)]
    return {**values, first: replaced(values[first], tuple(rest), value)}


def full_name(key: Key) -> str:
    """Return the name of `key` as it is typed."""
    return ".".join(map(str, key.path))


def _values(kind: Any, table: dict[Any, list[Any]]) -> Iterator[Any]:
    """Yield the values of `table` for `kind`; of a list or mapping, those with one wrong entry."""
    if get_origin(kind) is list:
        yield from ([value] for value in _values(get_args(kind)[0], table))
        yield from [[]] if table is UNWISE else [[{}], [[None]]]
    elif get_origin(kind) is dict:
        yield from ({"a": value} for value in _values(get_args(kind)[1], table))
        yield from [{}] if table is UNWISE else [{"": 1}, {3: 1}, {"a\nb": 1}]
    else:
        yield from table.get(kind, [])


def _below(value: Any, path: tuple[str | int, ...]) -> Iterator[Key]:
    if is_dataclass(value):
        yield from keys(value, path)
    elif isinstance(value, (list, dict)):
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in named:
            yield from _below(each, (*path, name))


def _options(kind: Any) -> tuple[Any, ...]:
    return (kind,) if get_origin(kind) in (list, dict, Annotated, None) else get_args(kind)


def draw_line(pick: random.Random) -> tuple[str, str]:
    """Return a kind of mistake, and an override that makes it."""
    group, other = pick.sample([*CHOICES], 2)
    option = pick.choice(FILES.options(group))
    key = pick.choice([each for _, config in configurations()[:1] for each in keys(config)])
    letter = pick.choice("aeiox")
    foreign = pick.choice([each for each in FILES.options(other) if each not in FILES.options(group)])
    number = pick.choice(["steps", "seed", "data.batch_size"])
    rate = pick.choice(["sampling.temperature", "plan.mfu", "optim.clip"])
    path = pick.choice(["out", "resume"])
    return pick.choice(
        [
            ("an option that does not exist", f"{group}={option[:-1]}zq{letter}"),
            ("an option of another group", f"{group}=[{foreign}]" if group in LISTED else f"{group}={foreign}"),
            ("a group that does not exist", f"{group}{letter}q={option}"),
            ("a key below a value", f"{full_name(key)}.{letter}q=1"),
            ("a number that is none, or out of range", f"{number}={pick.choice(['-1', 'nan', '1.5', 'x', '1e400'])}"),
            ("a path too long for a file system", f"{path}={'x' * pick.randint(256, 400)}"),
            ("nan, inf, or less than nothing", f"{rate}={pick.choice(['nan', 'inf', '-1'])}"),
        ]
    )


@cache
def drawable() -> list[tuple[Config, Key]]:
    """Return every key that has impossible values, with its configuration."""
    return [
        (config, key)
        for group, config in configurations()
        for key in keys(config)
        if group in ("", key.path[0]) and list(impossible(key))
    ]


def draw_value(pick: random.Random) -> tuple[str, Any, dict[str, Any]]:
    """Return the name of a key, a value that it cannot have, and the plain configuration in which it has it."""
    config, key = pick.choice(drawable())
    value = pick.choice(list(impossible(key)))
    return full_name(key), value, replaced(asdict(config), key.path, value)


def try_line(override: str) -> str | None:
    """Run a command line in the working directory, which is empty; return what is wrong with its answer, or None."""
    out, err, before = io.StringIO(), io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([override])
    said = err.getvalue()
    if (status, out.getvalue(), said.count("\n")) != (2, "", 1) or not said.startswith("error: "):
        return f"status {status}: {said!r}"
    if "please report" in said:
        return said
    if time.process_time() - before > SECONDS:
        return "took too long"
    return f"left {left}" if (left := [str(path) for path in Path().iterdir()]) else None


def try_value(name: str, values: dict[str, Any]) -> str | None:
    """Convert a plain configuration; return what is wrong with how it refuses the value of key `name`, or None."""
    try:
        convert_config(values)
    except ConfigError as error:
        return None if name in str(error) and "\n" not in str(error) else str(error)
    return "accepted"


def describe(tried: Counter[str], num_values: int, num_keys: int, wrong: list[str]) -> list[str]:
    """Return the lines of the report."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    total = tried.total() + num_values
    lines = ["# Mistakes drawn from a seed", ""]
    lines += [f"`{command_line('scripts.benchmarks.mistakes')}`, commit {commit}.", ""]
    lines += (__doc__ or "").splitlines()[5:]
    lines += ["", f"**{total:,} mistakes, {len(wrong)} wrong answers.**", "", "| mistake | tried |", "|---|---|"]
    lines += [f"| {kind} | {count:,} |" for kind, count in sorted(tried.items())]
    lines += [f"| a value that its type cannot have, of {num_keys} keys | {num_values:,} |"]
    lines += [f"- **wrong**: {each}" for each in wrong[:20]]
    return lines


def main() -> int:
    """Make the mistakes and write the report; return 1 where one of them got a wrong answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--values", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    pick, tried, wrong = random.Random(options.seed), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for _ in range(options.lines):
            kind, override = draw_line(pick)
            tried[kind] += 1
            wrong += [f"`{override}`: {found}" for found in [try_line(override)] if found]
    names = set()
    for _ in range(options.values):
        name, value, values = draw_value(pick)
        names.add(name)
        wrong += [f"`{name}={value!r}`: {found}" for found in [try_value(name, values)] if found]
    if str(options.report) != "none":
        options.report.write_text("\n".join(describe(tried, options.values, len(names), wrong)) + "\n")
    print(f"{tried.total() + options.values} mistakes, {len(wrong)} wrong answers", *wrong[:20], sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
