"""Convert plain YAML values to typed ones: no unknown or missing key, every value of the declared type."""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from nested_learning.errors import ConfigError

Choose = Callable[[Any, str], Any]

EXAMPLES: dict[type, tuple[str, str]] = {
    bool: ("true or false", "true"),
    int: ("a whole number", "16"),
    float: ("a number", "0.1"),
    str: ("text", "word"),
    list: ("a list", "[1,2]"),
    dict: ("a mapping", "{a:1}"),
}
# characters of a value that an error shows
SHOWN = 80
# NUL ends a text for the system, and a lone surrogate (a byte that is not UTF-8) cannot be written to a file
NO_TEXT = re.compile("[\0\ud800-\udfff]")
# bytes of a path, and of a name between slashes, that file systems accept
PATH_BYTES, NAME_BYTES = 4000, 255


class Allowed(NamedTuple):
    """What a value must be besides its type: the end of "must ...", a test, and an example of its own, if any."""

    words: str
    holds: Callable[[Any], bool]
    example: str | None = None


def is_path(value: str) -> bool:
    """Say whether `value` can name a file or folder."""
    if not value or NO_TEXT.search(value):
        return False
    # the home directory of a user who does not exist stays as it is
    is_found = not os.path.expanduser(value).startswith("~")  # noqa: PTH111
    is_short = len(value.encode()) <= PATH_BYTES and all(len(name.encode()) <= NAME_BYTES for name in value.split("/"))
    return is_found and is_short


def is_name(value: str) -> bool:
    """Say whether `value` can be one name of a path that a person reads."""
    return value.isprintable() and bool(value.strip()) and "/" not in value and len(value.encode()) <= NAME_BYTES


ANYTHING = Allowed("be anything", lambda _value: True)
# what is allowed of every value of a type
USUAL: dict[Any, Allowed] = {
    int: Allowed("be below 2^63 and at least -2^63", lambda value: -(2**63) <= value < 2**63),
    float: Allowed("be a finite number", math.isfinite),
    str: Allowed("be UTF-8 text without NUL characters", lambda value: NO_TEXT.search(value) is None),
}
# text that names a file or folder; whether it exists is checked where it is opened
PathText = Annotated[
    str,
    Allowed(f"name a file or folder: UTF-8 text of at most {NAME_BYTES} bytes between two slashes", is_path, "a/b"),
]
# text that names one folder, and the files of its reports
FolderName = Annotated[
    str,
    Allowed(
        f"name a folder: visible text without slashes, of at most {NAME_BYTES} bytes",
        lambda value: is_name(value) and value not in (".", ".."),
        "run-1",
    ),
]


def up_to(largest: int) -> Allowed:
    """Return that a whole number is at most `largest`."""
    return Allowed(f"be at most {largest:,}", lambda value: -(2**63) <= value <= largest)


# numbers of things that are made one by one, and lengths of texts that are written: beyond these work would not end
LayerCount = Annotated[int, up_to(10_000)]
ProcessCount = Annotated[int, up_to(1_000)]
Count = Annotated[int, up_to(1_000_000)]
Length = Annotated[int, up_to(100_000_000)]
# decimal digits of a number of 64 bits
DigitCount = Annotated[int, up_to(18)]
# a number that may be infinite
Unbounded = Annotated[float, Allowed("be a number", lambda value: not math.isnan(value))]


class MisfitError(ConfigError):
    """A value that does not fit its declaration; `key` is its full name, from which a caller can look up its origin."""

    def __init__(self, key: str, problem: str, fix: str) -> None:
        super().__init__(f"{key}{problem}; {fix}")
        self.key, self.problem, self.fix = key, problem, fix


class UnknownKeyError(MisfitError):
    """A key that does not exist beside the `known` ones; `where` lists these."""

    def __init__(self, key: str, known: Sequence[str]) -> None:
        parent, _, name = key.rpartition(".")
        self.known, self.where = known, f"{f'keys of {parent}' if parent else 'keys'}: {', '.join(known)}"
        super().__init__(key, ": no such key", f"{did_you_mean(name, known, parent)}{self.where}")


def convert(value: Any, kind: Any, key: str) -> Any:
    """Return `value` as `kind`: a plain type, a dataclass, `X | None`, `list[X]` or `dict[str, X]` of these.

    A whole number is accepted where a float is declared; nothing else is cast. Raises MisfitError, with the full key,
    for another type, and for a value that is not allowed: by an `Allowed` that annotates `kind`, or by USUAL.
    """
    if isinstance(value, str) and value == "???":
        raise MisfitError(key, ": needs a value", f"give one: {_override(key, kind)}")
    if _is_union(kind):
        return _convert_optional(value, kind, key)
    if is_dataclass(kind):
        return convert_dataclass(value, kind, key)
    if get_origin(kind) is list and isinstance(value, list):
        return [convert(item, get_args(kind)[0], f"{key}.{index}") for index, item in enumerate(value)]
    if get_origin(kind) is dict and isinstance(value, dict):
        return {
            check_name(name, key): convert(item, get_args(kind)[1], f"{key}.{name}") for name, item in value.items()
        }
    plain, allowed = _declared(kind)
    if type(value) is int and plain in (int, float):
        _require(USUAL[int], value, kind, key)
        value = plain(value)
    if type(value) is not plain:
        raise _wrong_type(value, plain, key)
    _require(allowed, value, kind, key)
    return value


def convert_dataclass(value: Any, kind: Any, key: str, special: dict[str, Choose] | None = None) -> Any:
    """Build the dataclass `kind` from the mapping `value`; `key` is its full name, "" at the root.

    `special` converts the fields whose class depends on their value: field name -> fn(value, full key).
    A key that is no field, or a field without key or default, raises MisfitError.
    """
    if not isinstance(value, dict):
        raise _wrong_type(value, dict, key)
    special, hints, built = special or {}, get_type_hints(kind, include_extras=True), {}
    known = {field.name: field for field in fields(kind)}
    for name in value:
        if name not in known:
            raise UnknownKeyError(full_key(key, str(name)), list(known))
    for name, field in known.items():
        full = full_key(key, name)
        if name in value:
            built[name] = (
                special[name](value[name], full) if name in special else convert(value[name], hints[name], full)
            )
        elif field.default is MISSING and field.default_factory is MISSING:
            raise MisfitError(full, ": missing", f"give it: {_override(full, hints[name])}")
    return kind(**built)


def did_you_mean(word: str, known: Sequence[str], parent: str = "") -> str:
    """Return "did you mean X? " for the known word most similar to `word`, or "" when none is similar."""
    near = get_close_matches(word, known, n=1)
    return f"did you mean {full_key(parent, near[0])}? " if near else ""


def check_at_least(key: str, value: float | int, least: float | int) -> None:
    """Raise ConfigError unless the value of `key` is `least` or more."""
    if not value >= least:
        raise ConfigError(f"{key}={value} must be at least {least}; for example {key}={least}")


def check_one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ConfigError unless the value of `key` is one of `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{key}={value}: no such {key}; {did_you_mean(value, allowed)}allowed: {', '.join(allowed)}")


def check_name(name: Any, key: str) -> str:
    """Return `name`, a name of one's own in the mapping `key`; raise MisfitError where it could not be shown."""
    if not isinstance(name, str):
        raise MisfitError(f"{key}.{name}", ": a name must be text", f'quote it: "{name}"')
    if not is_name(name):
        problem = f": a name must be visible text without slashes, of at most {NAME_BYTES} bytes"
        raise MisfitError(f"{key}.{_shown(name)}", problem, "for example a")
    return name


def full_key(parent: str, name: str) -> str:
    """Return the full name of key `name` of `parent`."""
    return f"{parent}.{name}" if parent else name


def _convert_optional(value: Any, kind: Any, key: str) -> Any:
    kinds = get_args(kind)
    if value is None and NoneType in kinds:
        return None
    options = [option for option in kinds if option is not NoneType]
    matching = [option for option in options if _declared(option)[0] is type(value)]
    return convert(value, [*matching, *options][0], key)


def _declared(kind: Any) -> tuple[Any, Allowed]:
    """Return the plain type of `kind`, such as list of list[int], and what is allowed of its values."""
    annotated, *marks = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    plain = get_origin(annotated) or annotated
    return plain, marks[0] if marks else USUAL.get(plain, ANYTHING)


def _require(allowed: Allowed, value: Any, kind: Any, key: str) -> None:
    if not allowed.holds(value):
        raise MisfitError(key, f"={_shown(value)} must {allowed.words}", f"for example {_override(key, kind)}")


def _wrong_type(value: Any, kind: Any, key: str) -> MisfitError:
    plain, _ = _declared(kind)
    wanted, _ = EXAMPLES.get(plain, ("nothing (null)", "null"))
    fix = (
        f"""quote it: "{key}='{_shortened(str(value))}'\"""" if plain is str else f"for example {_override(key, kind)}"
    )
    return MisfitError(key, f"={_shown(value)} must be {wanted}", fix)


def _override(key: str, kind: Any) -> str:
    options = [option for option in get_args(kind) if option is not NoneType] if _is_union(kind) else [kind]
    plain, allowed = _declared(options[0])
    _, example = EXAMPLES.get(plain, ("", "..."))
    return f"{key}={allowed.example or example}"


def _is_union(kind: Any) -> bool:
    return isinstance(kind, UnionType) or get_origin(kind) is Union


def _shown(value: Any) -> str:
    """Write a value as it is typed on the command line, the beginning of a long one."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _shortened(" ".join(repr(value).split()))


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
