"""Mistakes of users: for every key of every configuration class, values of its type that nobody should give.

Keys and types are those that the classes declare, so that a new key is tried too.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.registry import CHOICES, LISTED
from nested_learning.config.schema import Config, convert_config
from nested_learning.typed import Count, DigitCount, LayerCount, Length, PathText, ProcessCount, Unbounded

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
