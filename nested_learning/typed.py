"""Convert plain YAML values to typed ones: no unknown or missing key, every value of the declared type."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

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


class MisfitError(ConfigError):
    """A value that does not fit its declaration; `key` is its full name, from which a caller can look up its origin."""

    def __init__(self, key: str, problem: str, fix: str) -> None:
        super().__init__(f"{key}{problem}; {fix}")
        self.key, self.problem, self.fix = key, problem, fix


def convert(value: Any, kind: Any, key: str) -> Any:
    """Return `value` as `kind`: a plain type, a dataclass, `X | None`, `list[X]` or `dict[str, X]` of these.

    A whole number is accepted where a float is declared; nothing else is cast. Raises MisfitError, with the full key.
    """
    if isinstance(value, str) and value == "???":
        raise MisfitError(key, ": needs a value", f"give one: {_override(key, kind)}")
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return _convert_optional(value, kind, key)
    if is_dataclass(kind):
        return convert_dataclass(value, kind, key)
    if get_origin(kind) is list and isinstance(value, list):
        return [convert(item, get_args(kind)[0], f"{key}.{index}") for index, item in enumerate(value)]
    if get_origin(kind) is dict and isinstance(value, dict):
        return {_name(name, key): convert(item, get_args(kind)[1], f"{key}.{name}") for name, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    raise _wrong_type(value, kind, key)


def convert_dataclass(value: Any, kind: Any, key: str, special: dict[str, Choose] | None = None) -> Any:
    """Build the dataclass `kind` from the mapping `value`; `key` is its full name, "" at the root.

    `special` converts the fields whose class depends on their value: field name -> fn(value, full key).
    A key that is no field, or a field without key or default, raises MisfitError.
    """
    if not isinstance(value, dict):
        raise _wrong_type(value, dict, key)
    special, hints, built = special or {}, get_type_hints(kind), {}
    known = {field.name: field for field in fields(kind)}
    for name in value:
        if name not in known:
            raise unknown_key(key, str(name), list(known))
    for name, field in known.items():
        full = full_key(key, name)
        if name in value:
            built[name] = (
                special[name](value[name], full) if name in special else convert(value[name], hints[name], full)
            )
        elif field.default is MISSING and field.default_factory is MISSING:
            raise MisfitError(full, ": missing", f"give it: {_override(full, hints[name])}")
    return kind(**built)


def unknown_key(parent: str, name: str, known: Sequence[str]) -> MisfitError:
    """Return the error for a key `name` that `parent` ("" for the root) does not have."""
    inside = f"keys of {parent}" if parent else "keys"
    return MisfitError(
        full_key(parent, name), ": no such key", f"{did_you_mean(name, known, parent)}{inside}: {', '.join(known)}"
    )


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


def full_key(parent: str, name: str) -> str:
    """Return the full name of key `name` of `parent`."""
    return f"{parent}.{name}" if parent else name


def _convert_optional(value: Any, kind: Any, key: str) -> Any:
    kinds = get_args(kind)
    if value is None and NoneType in kinds:
        return None
    options = [option for option in kinds if option is not NoneType]
    matching = [option for option in options if (get_origin(option) or option) is type(value)]
    return convert(value, [*matching, *options][0], key)


def _name(name: Any, key: str) -> str:
    if not isinstance(name, str):
        raise MisfitError(f"{key}.{name}", ": a name must be text", f'quote it: "{name}"')
    return name


def _wrong_type(value: Any, kind: Any, key: str) -> MisfitError:
    plain = get_origin(kind) or kind
    wanted, _ = EXAMPLES.get(plain, ("nothing (null)", "null"))
    fix = f"""quote it: "{key}='{value}'\"""" if plain is str else f"for example {_override(key, kind)}"
    return MisfitError(key, f"={_shown(value)} must be {wanted}", fix)


def _override(key: str, kind: Any) -> str:
    options = [option for option in get_args(kind) if option is not NoneType] or [kind]
    plain = get_origin(kind) if get_origin(kind) in EXAMPLES else options[0]
    return f"{key}={EXAMPLES[plain][1] if plain in EXAMPLES else '...'}"


def _shown(value: Any) -> str:
    """Write a value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return " ".join(repr(value).split())
