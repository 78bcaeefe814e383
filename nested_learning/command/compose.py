"""From command-line overrides to composed configurations; every error is one line that names the fix.

Hydra composes the option files that the groups choose. The other overrides are set afterwards: over the settings of a
run where one is read, in any element of a list by its name, and for unknown keys too, which `load_config` then refuses.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nested_learning.command.checkpoint_defaults import RUN_KEYS, use_run_defaults, use_run_shape
from nested_learning.command.overrides import MAX_JOBS, check_option, parse, swept_values
from nested_learning.config.hints import takes_list
from nested_learning.config.option_files import ROOT, OptionFiles
from nested_learning.config.registry import LISTED
from nested_learning.config.schema import Config, first_line, load_config
from nested_learning.config.unread import refuse_unread
from nested_learning.errors import ConfigError
from nested_learning.typed import UnknownKeyError

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
        if override.key_or_group == "sweep":
            raise ConfigError(f"{line}: to run the jobs of a sweep add -m")
        if override.is_sweep_override():
            key, _, value = line.partition("=")
            one = f"; for one job with a list write {key}=[{value}]" if key in LISTED or takes_list(Config, key) else ""
            raise ConfigError(f"{line}: to run one job for each value add -m{one}")
    return Job(_load(files, overrides), {})


def make_jobs(files: OptionFiles, lines: Sequence[str]) -> list[Job]:
    """Compose and validate every combination of the swept values, the last key changing fastest; raise ConfigError.

    The variants of a sweep file (named sets of overrides) act as one more swept key, `variant`, which comes last.
    """
    lines, variants = _expand(files, lines)
    overrides = parse(files, lines)
    swept = {
        each.key_or_group: swept_values(line, each, files.options(each.key_or_group))
        for line, each in overrides.items()
        if each.is_sweep_override()
    }
    if (number := prod(map(len, [*swept.values(), variants or [""]]))) > MAX_JOBS:
        raise ConfigError(f"-m: {number:,} jobs, more than {MAX_JOBS:,}; sweep over fewer values at a time")
    fixed = [line for line, override in overrides.items() if not override.is_sweep_override()]
    jobs = []
    for *values, variant in product(*swept.values(), variants or [""]):
        chosen = dict(zip(swept, values, strict=True))
        more = variants[variant] if variant else []
        parsed = parse(files, [*fixed, *more, *(f"{key}={value}" for key, value in chosen.items())])
        jobs.append(Job(_load(files, parsed), chosen | ({VARIANT: variant} if variant else {})))
    return jobs


def as_hydra_reads(files: OptionFiles, lines: Sequence[str]) -> list[str]:
    """Return the overrides as Hydra itself understands them, with numbers for the elements of lists."""
    groups, given = _divide(files, parse(files, lines))
    _, keys = _set(OmegaConf.to_container(_compose(files, list(groups))), given.values())
    return [*groups, *(f"++{key}={line.partition('=')[2]}" for key, line in zip(keys, given, strict=True))]


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
        check_option(key, name, files.options(key))
        content = files.read(f"sweep/{name}")
        named = content.pop(VARIANTS, {})
        if not isinstance(named, dict) or not all(isinstance(each, dict) for each in named.values()):
            raise ConfigError(
                f"sweep={name}: {VARIANTS} must be settings by name, such as {{small: {{model.dim: 32}}}}"
            )
        if "sweep" in content:
            raise ConfigError(f"sweep={name}: its file names another sweep; write out what it sweeps over")
        for variant, values in named.items():
            variants[str(variant)] = [f"{changed}={_override_syntax(value)}" for changed, value in values.items()]
        expanded += [f"{swept}={_override_syntax(values)}" for swept, values in content.items() if swept not in given]
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
    groups, given = _divide(files, overrides)
    composed = _compose(files, list(groups))
    choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    # struct mode forbids deleting a key
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    values: Any = OmegaConf.to_container(composed)
    result, typed = _set(values, given.values())
    trains = OmegaConf.select(result, "phase.name") == "train"
    origin = "branch_from" if trains else "checkpoint"
    from_run: dict[str, str] = {}
    if isinstance(result[origin], str):
        chosen = [override.key_or_group for override in groups.values()]
        file = f"{Path(result[origin]) / 'config.yaml'}, perhaps of another version of nested_learning"
        from_run = {key: file for key in RUN_KEYS if key not in chosen}
        result, typed = _set(use_run_defaults(values, chosen, origin, result[origin]), given.values())
    elif trains and isinstance(result["stack_from"], str):
        result, typed = _set(use_run_shape(values, result["stack_from"]), given.values())
    config = load_config(result, lambda key: _origin(files, typed, choices, from_run, key))
    settings = {key: override.value() for key, override in zip(typed, given.values(), strict=True)}
    refuse_unread(config, {override.key_or_group: override.value() for override in groups.values()} | settings)
    return config


def _divide(files: OptionFiles, overrides: Mapping[str, Override]) -> tuple[dict[str, Override], dict[str, Override]]:
    """Return the overrides that choose options of groups, and those that set values."""
    groups = {line: each for line, each in overrides.items() if files.options(each.key_or_group)}
    return groups, {line: each for line, each in overrides.items() if line not in groups}


def _set(values: Any, overrides: Iterable[Override]) -> tuple[Any, list[str]]:
    """Return `values` with `overrides`, and the full keys that these set; raise ConfigError where one cannot be set."""
    result, keys = OmegaConf.create(values), []
    for override in overrides:
        keys.append(_numbered(result, override.key_or_group))
        try:
            OmegaConf.update(result, keys[-1], override.value(), merge=True, force_add=True)
        except OmegaConfBaseException as error:
            raise ConfigError(
                f"{keys[-1]}: cannot be set ({first_line(error)}); give a value of the kind that "
                "`python train.py --cfg job` shows"
            ) from error
    return result, keys


def _numbered(values: Any, key: str) -> str:
    """Return `key` with a number for each name of an element of a list: `optim.groups.matrices.lr` has number 1.

    Raises ConfigError for an element that is not there.
    """
    names = key.split(".")
    for depth, name in enumerate(names):
        if OmegaConf.is_list(values):
            known = [str(each["name"]) for each in values if OmegaConf.is_dict(each) and "name" in each]
            if name in known:
                names[depth] = str(known.index(name))
            elif not (name.isdecimal() and int(name) < len(values)):
                raise UnknownKeyError(".".join(names[: depth + 1]), known or [str(each) for each in range(len(values))])
            values = values[int(names[depth])]
        elif OmegaConf.is_dict(values) and name in values:
            values = values[name]
        else:
            break
    return ".".join(names)


def _compose(files: OptionFiles, lines: list[str]) -> Any:
    first, *others = (str(folder) for folder in files.folders)
    search = ",".join("'file://" + folder.replace("'", "\\'") + "'" for folder in others)
    try:
        with initialize_config_dir(first, version_base="1.3"):
            return compose(ROOT, [*lines, f"hydra.searchpath=[{search}]"], return_hydra_config=True)
    except MissingConfigException as error:
        raise ConfigError(f"{error.missing_cfg_file}: no such option file; {first_line(error)}") from error
    # Hydra raises ValueError for a list of defaults that is none
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        reason = " ".join((str(error) or str(error.__cause__)).split())
        raise ConfigError(f"an option file of {', '.join(lines)} cannot be used: {reason}; correct the file") from error
    except RecursionError as error:
        chosen = ", ".join(lines) or "the options"
        raise ConfigError(
            f"--config-dir {others[0]}: {chosen}: option files list each other under `defaults`; "
            "remove one of these entries"
        ) from error
    except (yaml.YAMLError, OSError) as error:
        # raised for a file that an option file lists under `defaults`
        raise ConfigError(f"an option file cannot be read: {' '.join(str(error).split())}") from error


def _origin(files: OptionFiles, typed: Sequence[str], choices: Any, from_run: Mapping[str, str], key: str) -> str:
    """Return where `key` was set: on the command line (whose keys are `typed`), in a run, or in which option file."""
    if any(f"{key}.".startswith(f"{given}.") or given.startswith(f"{key}.") for given in typed):
        return "on the command line"
    group, _, rest = key.partition(".")
    if group in from_run:
        return from_run[group]
    chosen = {f"experiment/{choices['experiment']}": ""} if "experiment" in choices else {}
    if group in LISTED:
        option = rest.partition(".")[0]
        chosen[f"{group}/{option}"] = f"{group}.{option}"
    elif group in choices:
        chosen[f"{group}/{choices[group]}"] = group
    return files.origin(key, {**chosen, ROOT: ""})
