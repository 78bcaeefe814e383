"""The whole configuration of a run as typed values, checked once by `load_config`.

A configuration class is in the folder of what it configures, usually in its `config.py`. Defaults are in `configs/`;
where a class repeats one, a test checks that they are equal. This module must not import torch, so that a mistyped key
is reported at once.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from nested_learning.config.hints import suggest
from nested_learning.config.registry import CHOICES, LISTED
from nested_learning.data.curriculum import StageConfig
from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.config import EvalConfig
from nested_learning.inference.config import MemorizeConfig, MemoryConfig, SamplingConfig
from nested_learning.launcher.joblib import JoblibConfig
from nested_learning.launcher.serial import SerialConfig
from nested_learning.launcher.submitit import SubmititConfig
from nested_learning.logger.protocol import LoggerConfig
from nested_learning.model.associative import MemoryModelConfig
from nested_learning.model.config import ModelConfig
from nested_learning.objective.config import NextTokenConfig, OnlineConfig, ReconstructConfig
from nested_learning.optim.config import OptimConfig
from nested_learning.phase.config import PhaseConfig
from nested_learning.planning.config import PlanConfig
from nested_learning.train.divergence.policy import POLICIES as DIVERGENCES
from nested_learning.typed import (
    FolderName,
    MisfitError,
    PathText,
    ProcessCount,
    UnknownKeyError,
    check_at_least,
    check_name,
    check_one_of,
    convert_dataclass,
    did_you_mean,
    full_key,
)
from nested_learning.world.config import WorldConfig, split_device

DTYPES = ("float32", "bfloat16", "float16", "float8")
COMPILES = ("off", "regional", "full")
RECOMPUTES = ("off", "block", "chunk")
WEIGHTS = ("model", "ema")
MEMORY_BACKENDS = ("auto", "eager", "cpp", "triton", "fla")

Origin = Callable[[str], str]


@dataclass(kw_only=True)
class Config:
    """All settings of a run; `configs/train.yaml` says what each key means."""

    model: ModelConfig
    optim: OptimConfig
    data: DataConfig
    objective: NextTokenConfig | OnlineConfig | ReconstructConfig
    memory: MemoryConfig | MemorizeConfig
    phase: PhaseConfig
    evals: dict[str, EvalConfig]
    logger: dict[str, LoggerConfig]
    launcher: SerialConfig | JoblibConfig | SubmititConfig
    seed: int
    name: FolderName | None
    out: PathText
    steps: int
    micro_batches: int | None
    num_workers: ProcessCount
    stages: list[StageConfig]
    val_every: int
    save_every: int
    keep_every: int
    log_every: int
    sample_every: int
    divergence: str
    profile: int
    device: str
    dtype: str
    compile: str
    recompute: str
    backend: str
    resume: PathText
    dry_run: bool
    overfit: bool
    checkpoint: PathText | None
    stack_from: PathText | None
    branch_from: PathText | None
    weights: str
    prompt: str
    prompts: list[str]
    sampling: SamplingConfig
    world: WorldConfig
    plan: PlanConfig

    def __post_init__(self) -> None:
        for key in ("steps", "val_every", "save_every", "log_every"):
            check_at_least(key, vars(self)[key], 1)
        if self.micro_batches is not None:
            check_at_least("micro_batches", self.micro_batches, 1)
        for key in ("seed", "num_workers", "keep_every", "sample_every", "profile"):
            check_at_least(key, vars(self)[key], 0)
        check_one_of("divergence", self.divergence, DIVERGENCES)
        split_device(self.device)
        check_one_of("dtype", self.dtype, DTYPES)
        check_one_of("backend", self.backend, MEMORY_BACKENDS)
        check_one_of("compile", self.compile, COMPILES)
        check_one_of("recompute", self.recompute, RECOMPUTES)
        check_one_of("weights", self.weights, WEIGHTS)
        if self.phase.trains:
            self._check_training()
        else:
            self._check_reading()

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        reads, keys = self.phase.reads, vars(self).keys()
        reasons = {} if reads is None else dict.fromkeys(keys - reads, f"phase={self.phase.name} reads no such setting")
        if reads is not None and self.launcher.name != "serial":
            del reasons["out"]
        if not self.dry_run:
            reasons.setdefault("plan", "it is for dry_run=true")
        if not self.sample_every:
            reasons.setdefault("prompts", "it is for sample_every=100; the sample at the end continues prompt=")
        if not self.phase.trains or self.stack_from is not None:
            reasons |= dict.fromkeys(("data.tokenizer", "data.vocab_size"), "the model brings its tokenizer")
        if not isinstance(self.model, MemoryModelConfig):
            no_memory = f"model={self.model.name} has no memories that write while they read"
            if self.recompute == "chunk":
                reasons["recompute"] = f"recompute=chunk is for memories, and {no_memory}"
            if self.backend not in ("auto", "eager"):
                reasons["backend"] = f"backend={self.backend} is for memories, and {no_memory}"
        return reasons

    def _check_reading(self) -> None:
        if self.checkpoint is None:
            raise ConfigError(f"phase={self.phase.name} reads a trained run: give checkpoint={self.out}/<run>")
        for key in ("stack_from", "branch_from"):
            if vars(self)[key] is not None:
                raise ConfigError(f"{key}={vars(self)[key]} is for phase=train; leave it out")
        if isinstance(self.memory, MemorizeConfig):
            self.memory.check_model([level.name for level in self.model.levels], self.model.num_layers)

    def _check_training(self) -> None:
        if self.checkpoint is not None:
            raise ConfigError(
                f"checkpoint={self.checkpoint} is for phase=eval, sample and export; to resume "
                f"training give resume={self.checkpoint}, to start from its weights stack_from={self.checkpoint}"
            )
        if self.branch_from is not None and self.stack_from is not None:
            raise ConfigError(f"branch_from={self.branch_from}: the weights come from that run; leave stack_from out")
        if self.weights != "model":
            raise ConfigError(
                f"weights={self.weights} is for phase=eval, sample and export; training updates weights=model"
            )
        self.objective.check(self.model.levels)
        if self.world.is_deterministic and self.micro_batches is None:
            raise ConfigError(
                "world.reduction=deterministic: how a batch is divided must not depend on the number of processes; "
                "give micro_batches, for example micro_batches=4"
            )
        if self.world.parallel == "fsdp" and any(level.is_taught_through for level in self.model.levels):
            raise ConfigError(
                "world.parallel=fsdp: cannot gather parameters for second derivatives, which a level with "
                "signal=teach and gradient=through needs; use gradient: first_order, or world.parallel=ddp"
            )
        if self.compile != "off" and any(level.is_taught for level in self.model.levels):
            raise ConfigError(
                f"compile={self.compile}: a compiled graph can be differentiated only once, and levels with "
                "signal=teach differentiate it before the backward pass; use compile=off"
            )


def load_config(composed: Any, origin: Origin = lambda _key: "") -> Config:
    """Turn the composed Hydra configuration into typed values.

    `origin(full key)` returns the file or command line that set a key, "" when it is unknown. Raises ConfigError for an
    unknown or missing key, a value of the wrong type or out of range, and an unknown option name.
    """
    try:
        values = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {first_line(error)}; write a value in the place of ${{...}}") from error
    return convert_config(values, origin)


def to_yaml(config: Config, part: str | None = None) -> str:
    """Return `config` as the text of a run directory's config.yaml; `from_yaml` reads an equal one back.

    `part`: the full name of a key, to return its value alone; raises ConfigError where there is none.
    """
    values = OmegaConf.create(asdict(config))
    if part is None:
        return OmegaConf.to_yaml(values)
    selected = OmegaConf.select(values, part)
    if selected is None:
        raise ConfigError(f"--package {part}: no such part of the configuration; allowed: {', '.join(values)}, ...")
    return OmegaConf.to_yaml(selected) if OmegaConf.is_config(selected) else f"{selected}\n"


def from_yaml(path: Path) -> Config:
    """Read a run's config.yaml as strictly as the command line is read; raise ConfigError with the file's name."""
    try:
        # interpolations are not resolved: a prompt may contain "${"
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the directory of a run") from error
    except (UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: is no YAML ({first_line(error)}); give the directory of another run") from error
    return convert_config(values, lambda _key: str(path))


def read_model(values: Any) -> ModelConfig:
    """Turn the plain values of a model's options into their class; raise ConfigError as `load_config` does."""
    model: ModelConfig = _choose("model", values, "model")
    return model


def first_line(error: Exception) -> str:
    """Return the first line of another library's error message."""
    return str(error).strip().split("\n")[0]


def convert_config(values: Any, origin: Origin = lambda _key: "") -> Config:
    """Turn the plain values of a whole configuration into typed ones; raise ConfigError as `load_config` does."""
    special = {group: _chooser(group) for group in CHOICES if group not in LISTED}
    special |= {group: _list_chooser(group) for group in LISTED}
    try:
        return convert_dataclass(values, Config, "", special)
    except MisfitError as misfit:
        source, fix = origin(misfit.key), misfit.fix
        if isinstance(misfit, UnknownKeyError):
            fix = suggest(misfit.key, values, misfit.known) + misfit.where
        raise ConfigError(f"{misfit.key}{misfit.problem}{f' ({source})' if source else ''}; {fix}") from misfit


def _chooser(group: str) -> Callable[[Any, str], Any]:
    return lambda value, key: _choose(group, value, key)


def _list_chooser(group: str) -> Callable[[Any, str], Any]:
    def choose(value: Any, key: str) -> dict[str, Any]:
        options = _mapping(value, key)
        for name, item in options.items():
            # a setting of an option that was not chosen has made an entry without a name
            if group in LISTED and "name" not in _mapping(item, full_key(key, check_name(name, key))):
                if name not in CHOICES[group]:
                    raise UnknownKeyError(full_key(key, name), list(CHOICES[group]))
                raise MisfitError(full_key(key, name), ": not chosen", f"choose it: {key}=[{','.join(options)}]")
        return {check_name(name, key): _choose(group, item, full_key(key, name)) for name, item in options.items()}

    return choose


def _choose(group: str, value: Any, key: str) -> Any:
    """Build the configuration class of an option from its values, whose `name` chooses the class."""
    options = CHOICES[group]
    if "name" not in _mapping(value, key):
        raise MisfitError(f"{key}.name", ": missing", f"every option of {group} has a name: {', '.join(options)}")
    name = value["name"]
    if not isinstance(name, str) or name not in options:
        fix = f"{did_you_mean(str(name), list(options))}allowed: {', '.join(options)}"
        raise MisfitError(f"{key}.name", f"={name}: no such {group}", fix)
    # the sources of a mixture are options of data too
    special = {"sources": _list_chooser(group)} if group == "data" else None
    return convert_dataclass(value, options[name], key, special)


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MisfitError(
            key, f"={value} must be an option of the group {key}", f"one of: {', '.join(CHOICES[key.split('.')[0]])}"
        )
    return value
