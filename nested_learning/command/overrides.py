"""The syntax of overrides such as `model=hope` or `seed=0,1`: read and checked before anything is composed."""

import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Sweep
from hydra.errors import HydraException

from nested_learning.config.option_files import OptionFiles
from nested_learning.config.registry import CHOICES, LISTED
from nested_learning.config.schema import first_line
from nested_learning.errors import ConfigError
from nested_learning.typed import did_you_mean

# keys whose values are free text
FREE_TEXT = ("prompt",)
# jobs of a sweep; more of them are a mistake
MAX_JOBS = 10_000


def keep_last(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides without those whose key is given again later, and a note about each of these.

    Wrappers append what they change: the last value wins, as in Hydra.
    """
    last = {key_of(line): line for line in lines}
    kept = [line for index, line in enumerate(lines) if key_of(line) not in map(key_of, lines[index + 1 :])]
    return kept, [f"{line}: given again later, {last[key_of(line)]} is used" for line in lines if line not in kept]


def key_of(line: str) -> str:
    """Return the key of an override, with dots in the place of brackets: `model.levels[0]` is `model.levels.0`."""
    return _dotted(line.partition("=")[0].lstrip("+"))


def parse(files: OptionFiles, lines: Sequence[str]) -> dict[str, Override]:
    """Parse and check overrides such as `model=hope` or `seed=0,1`, by line; raise ConfigError. Nothing is composed."""
    seen: dict[str, str] = {}
    overrides: dict[str, Override] = {}
    for line in map(_take_literally, lines):
        overrides[line] = override = _parse_line(line)
        _check(files, line, override)
        key = override.key_or_group
        if key in seen:
            raise ConfigError(f"{key}: given twice ({seen[key]} and {line}); leave one out")
        seen[key] = line
    return overrides


def check_option(group: str, value: Any, options: list[str]) -> list[str]:
    """Return the names of the options that a group is set to; raise ConfigError for one that does not exist."""
    listed = group in LISTED
    names = value if listed and isinstance(value, list) else [value]
    for name in names:
        if name not in options:
            several = f"; several: {group}=[{','.join(options[:2])}]; none: {group}=[]" if listed else ""
            hint, name = did_you_mean(str(name), options), "null" if name is None else name
            raise ConfigError(f"{group}={name}: no such option; {hint}allowed: {', '.join(options)}{several}")
    return names


def swept_values(line: str, override: Override, options: list[str]) -> list[str]:
    """Return the values of a sweep, as they are typed; `options` are those of the key if it is a group."""
    value: Any = override.value()
    key = override.key_or_group
    if isinstance(value, Glob):
        values = value.filter(options)
        fix = f"options of {key}: {', '.join(options)}" if options else f"write the values, such as {key}=a,b"
    elif override.is_choice_sweep() or override.is_range_sweep():
        fix = f"write {key}=a,b or {key}=range(0,3)"
        try:
            values = list(islice(override.sweep_string_iterator(), MAX_JOBS + 1))
        except ValueError as error:
            raise ConfigError(f"{line}: no range ({first_line(error)}); {fix}") from error
    else:
        raise ConfigError(f"{line}: a sweep lists its values, such as {key}=a,b or {key}=range(0,3)")
    if not values:
        raise ConfigError(f"{line}: a sweep without values; {fix}")
    if len(values) > MAX_JOBS:
        raise ConfigError(f"{line}: a sweep of more than {MAX_JOBS} jobs; {fix}")
    return values


def _take_literally(line: str) -> str:
    """Quote the value of a key that holds free text, so that commas, brackets and outer spaces have no meaning."""
    key, equals, value = line.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not equals or key.lstrip("+") not in FREE_TEXT or is_quoted:
        return line
    # OmegaConf resolves "${" unless it is escaped; backslashes are doubled before it and before a quote, nowhere else
    escaped = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + (r"\'" if match[2] else ""), escaped)
    return f"{key}='{escaped}'"


def _parse_line(line: str) -> Override:
    typed, equals, value = line.partition("=")
    parser = OverridesParser.create()
    key = _dotted(typed)
    try:
        return parser.parse_override(key + equals + value)
    # Python refuses to read a number of more than 4300 digits
    except (HydraException, ValueError) as error:
        if not equals:
            raise ConfigError(
                f"{line}: not an override; write key=value, such as steps=100 or model=hope, and quote a value with "
                "spaces: 'key=a b'"
            ) from error
        try:
            parser.parse_override(f"{key}=0")
        except HydraException:
            raise ConfigError(
                f"{line}: {typed!r} is no key; keys are words with dots between them, such as model.dim"
            ) from error
        raise ConfigError(
            f"{line}: the value cannot be read ({first_line(error)}); {_fix_value(key, value)}"
        ) from error


def _dotted(key: str) -> str:
    return re.sub(r"\[(\w+)\]", r".\1", key)


def _fix_value(key: str, value: str) -> str:
    """Return how to write a value that Hydra cannot read."""
    if value[:1] in ("[", "{") and value[-1] not in "]}":
        return f"a shell splits at spaces: leave them out, or quote the whole argument: '{key}={value} ...'"
    quote = '"' if '"' not in value else "'"
    return f"to give this text quote it twice: {shlex.quote(f'{key}={quote}{value}{quote}')}"


def _check(files: OptionFiles, line: str, override: Override) -> None:
    """Raise ConfigError for syntax of Hydra that this project does not use, and for options that do not exist."""
    key = override.key_or_group
    if not key:
        raise ConfigError(f"{line}: no key; write key=value, such as steps=100")
    if key.replace("/", ".").split(".")[0] == "hydra":
        raise ConfigError(f"{line}: Hydra's own settings are fixed; the run directory is out=<folder> name=<name>")
    if override.is_delete():
        raise ConfigError(f"{line}: a key cannot be deleted; set it: {key}=<value>")
    if override.package is not None:
        raise ConfigError(f"{line}: a group has one fixed package; write {key}=<option>")
    options = files.options(key)
    if "/" in key and not options:
        raise ConfigError(f"{key}: no such group; allowed: {', '.join(files.groups())}")
    if options and key not in (*CHOICES, "experiment", "sweep"):
        raise ConfigError(f"{key}: no such group; allowed: {', '.join(CHOICES)}, experiment, sweep")
    if options and override.is_add():
        raise ConfigError(f"{line}: the group {key} is always set; write {line.lstrip('+')}")
    if override.is_sweep_override():
        return
    for part in _parts(override.value()):
        if isinstance(part, Sweep | Glob):
            raise ConfigError(f"{line}: a sweep is a whole value; write {key}=<value>,<value>")
    if options:
        for name in check_option(key, override.value(), options):
            if "hydra" in files.read(f"{key}/{name}"):
                raise ConfigError(f"{key}={name}: its file sets `hydra`, which is fixed; remove that from the file")
    elif "None" in _parts(override.value()) and not re.search("""['"]None['"]""", line):
        raise ConfigError(f"{line}: nothing is written null: {line.replace('None', 'null')}")


def _parts(value: Any) -> Iterable[Any]:
    """Yield the plain values in nested lists and mappings."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)
    else:
        yield value
