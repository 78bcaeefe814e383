"""From command-line overrides to composed configurations; every error is one line that names the fix.

Overrides are checked against the option files before Hydra sees them. Every `key=value` is passed to Hydra as
`++key=value`, which it accepts for unknown keys too: `load_config` then refuses them and lists the allowed ones.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nested_learning.command.checkpoint_defaults import use_run_defaults, use_run_shape
from nested_learning.config.option_files import ROOT, OptionFiles
from nested_learning.config.registry import LISTED
from nested_learning.config.schema import Config, first_line, load_config
from nested_learning.errors import ConfigError
from nested_learning.typed import did_you_mean

# keys whose values are free text
FREE_TEXT = ("prompt",)
# in a sweep file: named sets of overrides, and the key under which a job shows the name of its set
VARIANTS, VARIANT = "variants", "variant"


@dataclass(frozen=True)
class Job:
    """One configuration to run, and the overrides that distinguish it from the other jobs of the sweep."""

    config: Config
    swept: dict[str, str]


def make_job(files: OptionFiles, lines: Sequence[str]) -> Job:
    """Compose and validate the one configuration that the overrides `lines` describe; raise ConfigError."""
    overrides = parse(files, lines)
    for line, override in overrides.items():
        if override.is_sweep_override():
            key, _, value = line.partition("=")
            one = "" if files.options(key) and key not in LISTED else f"; for one job with a list write {key}=[{value}]"
            raise ConfigError(f"{line}: to run one job for each value add -m{one}")
    return Job(_load(files, overrides), {})


def make_jobs(files: OptionFiles, lines: Sequence[str]) -> list[Job]:
    """Compose and validate every combination of the swept values, the last key changing fastest; raise ConfigError.

    The variants of a sweep file (named sets of overrides) act as one more swept key, `variant`, which comes last.
    """
    lines, variants = _expand(files, lines)
    overrides = parse(files, lines)
    swept = {each.key_or_group: _values(line, each) for line, each in overrides.items() if each.is_sweep_override()}
    fixed = [line for line, override in overrides.items() if not override.is_sweep_override()]
    jobs = []
    for *values, variant in product(*swept.values(), variants or [""]):
        chosen = dict(zip(swept, values, strict=True))
        more = variants[variant] if variant else []
        parsed = parse(files, [*fixed, *more, *(f"{key}={value}" for key, value in chosen.items())])
        jobs.append(Job(_load(files, parsed), chosen | ({VARIANT: variant} if variant else {})))
    return jobs


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
    try:
        return OverridesParser.create().parse_override(line)
    # Python refuses to read a number of more than 4300 digits
    except (HydraException, ValueError) as error:
        key, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(f"{line}: not an override; write key=value, such as steps=100 or model=hope") from error
        fix = f"""quote it twice: '{key}="{value}"'"""
        raise ConfigError(f"{line}: the value cannot be read ({first_line(error)}); {fix}") from error


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
    if options and override.is_add():
        raise ConfigError(f"{line}: the group {key} is always set; write {line.lstrip('+')}")
    if options and not override.is_sweep_override():
        for name in _check_option(key, override.value(), options):
            files.read(f"{key}/{name}")


def _check_option(group: str, value: Any, options: list[str]) -> list[str]:
    """Return the names of the options that a group is set to; raise ConfigError for one that does not exist."""
    listed = group in LISTED
    names = value if listed and isinstance(value, list) else [value]
    for name in names:
        if name not in options:
            several = f"; several: {group}=[{','.join(options[:2])}]; none: {group}=[]" if listed else ""
            hint = did_you_mean(str(name), options)
            raise ConfigError(f"{group}={name}: no such option; {hint}allowed: {', '.join(options)}{several}")
    return names


def _values(line: str, override: Override) -> list[str]:
    if not (override.is_choice_sweep() or override.is_range_sweep()):
        key = override.key_or_group
        raise ConfigError(f"{line}: a sweep lists its values, such as {key}=a,b or {key}=range(0,3)")
    return list(override.sweep_string_iterator())


def _expand(files: OptionFiles, lines: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Replace `sweep=<name>` by the `key: values` of the file sweep/<name>.yaml; the command line wins.

    Also returns the overrides of the file's `variants`, by name.
    """
    given = {line.partition("=")[0] for line in lines}
    expanded: list[str] = []
    variants: dict[str, list[str]] = {}
    for line in lines:
        key, _, name = line.partition("=")
        if key != "sweep":
            expanded.append(line)
            continue
        _check_option(key, name, files.options(key))
        content = files.read(f"sweep/{name}")
        for variant, values in content.pop(VARIANTS, {}).items():
            variants[variant] = [f"{changed}={_override_syntax(value)}" for changed, value in values.items()]
        expanded += [f"{swept}={values}" for swept, values in content.items() if swept not in given]
    return expanded, variants


def _override_syntax(value: Any) -> str:
    """Write a value of a YAML file in the syntax of overrides; a text that is the whole value stays unquoted."""

    def inner(part: Any) -> str:
        if isinstance(part, dict):
            return "{" + ",".join(f"{key}:{inner(each)}" for key, each in part.items()) + "}"
        if isinstance(part, list):
            return "[" + ",".join(map(inner, part)) + "]"
        if isinstance(part, str):
            # a backslash is literal except before a quote
            return "'" + part.replace("'", r"\'") + "'"
        return json.dumps(part)

    return value if isinstance(value, str) else inner(value)


def _load(files: OptionFiles, overrides: Mapping[str, Override]) -> Config:
    keys = {line: override.key_or_group for line, override in overrides.items()}
    typed = [key for key in keys.values() if not files.options(key)]
    # `++` sets a key whether or not the option files have it; groups choose files and take no prefix
    lines = [f"++{line.lstrip('+')}" if key in typed else line for line, key in keys.items()]
    composed = _compose(files, lines)
    choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    # struct mode forbids deleting a key
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    trains = OmegaConf.select(composed, "phase.name") == "train"
    values: Any = OmegaConf.to_container(composed)
    origin = "branch_from" if trains else "checkpoint"
    if isinstance(values[origin], str):
        composed = OmegaConf.create(use_run_defaults(values, list(keys.values()), origin))
    elif trains and isinstance(values["stack_from"], str):
        composed = OmegaConf.create(use_run_shape(values, list(keys.values())))
    return load_config(composed, lambda key: _origin(files, typed, choices, key))


def _compose(files: OptionFiles, lines: list[str]) -> Any:
    first, *others = (str(folder) for folder in files.folders)
    search = ",".join("'file://" + folder.replace("'", "\\'") + "'" for folder in others)
    try:
        with initialize_config_dir(first, version_base="1.3"):
            return compose(ROOT, [*lines, f"hydra.searchpath=[{search}]"], return_hydra_config=True)
    except MissingConfigException as error:
        raise ConfigError(f"{error.missing_cfg_file}: no such option file; {first_line(error)}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error).replace("Error merging override ++", "no such key: ")) from error
    except (yaml.YAMLError, OSError) as error:
        # raised for a file that an option file lists under `defaults`
        raise ConfigError(f"an option file cannot be read: {' '.join(str(error).split())}") from error


def _origin(files: OptionFiles, typed: Sequence[str], choices: Any, key: str) -> str:
    """Return where `key` was set: on the command line (whose keys are `typed`), or in which option file."""
    if any(f"{key}.".startswith(f"{given}.") or given.startswith(f"{key}.") for given in typed):
        return "on the command line"
    group, _, rest = key.partition(".")
    chosen = {f"experiment/{choices['experiment']}": ""} if "experiment" in choices else {}
    if group in LISTED:
        option = rest.partition(".")[0]
        chosen[f"{group}/{option}"] = f"{group}.{option}"
    elif group in choices:
        chosen[f"{group}/{choices[group]}"] = group
    return files.origin(key, {**chosen, ROOT: ""})
