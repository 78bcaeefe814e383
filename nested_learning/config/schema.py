"""The whole configuration of a run as typed values, checked once: after `load` no code looks a key up by name.

A configuration class lives in the folder of what it configures, most often in its `config.py`. Defaults stand in
`configs/`; where a class repeats one, a test holds them equal. This module must not import torch, so that a mistyped
key is reported at once.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

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
from nested_learning.model.config import ModelConfig
from nested_learning.objective.config import NextTokenConfig, OnlineConfig, ReconstructConfig
from nested_learning.optim.config import OptimConfig
from nested_learning.phase.config import PhaseConfig
from nested_learning.planning.config import PlanConfig
from nested_learning.train.divergence.policy import POLICIES as DIVERGENCES
from nested_learning.typed import MisfitError, check_at_least, check_one_of, convert_dataclass, did_you_mean, join
from nested_learning.world.config import WorldConfig

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "bfloat16", "float16", "float8")
COMPILES = ("off", "regional", "full")
RECOMPUTES = ("off", "block", "chunk")
WEIGHTS = ("model", "ema")
MEMORY_BACKENDS = ("auto", "eager", "cpp", "triton", "fla")

Origin = Callable[[str], str]


@dataclass(kw_only=True)
class Config:
    """Everything a run is made of, on one screen; `configs/train.yaml` says what each key means."""

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
    name: str | None
    out: str
    steps: int
    micro_batches: int | None
    num_workers: int
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
    resume: str
    dry_run: bool
    overfit: bool
    checkpoint: str | None
    stack_from: str | None
    branch_from: str | None
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
        check_one_of("device", self.device, DEVICES)
        check_one_of("dtype", self.dtype, DTYPES)
        check_one_of("backend", self.backend, MEMORY_BACKENDS)
        check_one_of("compile", self.compile, COMPILES)
        check_one_of("recompute", self.recompute, RECOMPUTES)
        check_one_of("weights", self.weights, WEIGHTS)
        if self.name is not None and (not self.name or Path(self.name).name != self.name):
            raise ConfigError(
                f"name={self.name!r} must be a folder name without slashes; the run directory is <out>/<name>"
            )
        if self.phase.trains:
            self._check_training()
        else:
            self._check_reading()

    def _check_reading(self) -> None:
        if self.checkpoint is None:
            raise ConfigError(f"phase={self.phase.name} reads a trained run: give checkpoint={self.out}/<run>")
        for key in ("stack_from", "branch_from"):
            if vars(self)[key] is not None:
                raise ConfigError(f"{key}={vars(self)[key]} is for phase=train; leave it out")

    def _check_training(self) -> None:
        if self.checkpoint is not None:
            raise ConfigError(
                f"checkpoint={self.checkpoint} is for phase=eval, sample and export; to train on give "
                f"resume={self.checkpoint}, to begin with its weights stack_from={self.checkpoint}"
            )
        if self.branch_from is not None and self.stack_from is not None:
            raise ConfigError(
                f"branch_from={self.branch_from}: the model has the weights of that run; leave stack_from out"
            )
        if self.weights != "model":
            raise ConfigError(
                f"weights={self.weights} is for phase=eval, sample and export; what is trained is weights=model"
            )
        self.objective.check(self.model.levels)
        if self.world.is_deterministic and self.micro_batches is None:
            raise ConfigError(
                "world.reduction=deterministic: how a batch is divided must not depend on the number of processes; "
                "give micro_batches, for example micro_batches=4"
            )
        if self.world.parallel == "fsdp" and any(level.is_taught_through for level in self.model.levels):
            raise ConfigError(
                "world.parallel=fsdp: cannot gather parameters for a second derivative, which gradient=through of a "
                "level with signal=teach takes; use gradient: first_order, or world.parallel=ddp"
            )
        if self.compile != "off" and any(level.is_taught for level in self.model.levels):
            raise ConfigError(
                f"compile={self.compile}: a compiled model gives its gradient once, and levels that write ask for it "
                "first; use compile=off"
            )


def load(composed: Any, origin: Origin = lambda _key: "") -> Config:
    """Turn the composed Hydra configuration into typed values.

    `origin(full key)` names the file or command line that a key came from, "" when it is not known. Raises ConfigError
    for an unknown or missing key, a value of the wrong type, an unknown option name, or a value that makes no sense.
    """
    try:
        values = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {first_line(error)}") from error
    return _read(values, origin)


def to_yaml(config: Config) -> str:
    """Write `config` as the text of a run directory's config.yaml, which `from_yaml` reads back to an equal one."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


def from_yaml(path: Path) -> Config:
    """Read a run's config.yaml as strictly as the command line is read; raise ConfigError with the file's name."""
    try:
        # no interpolation is resolved: a prompt may hold "${"
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the directory of a run") from error
    return _read(values, lambda _key: str(path))


def read_model(values: Any) -> ModelConfig:
    """Turn the plain values of a model's options into their class; raise ConfigError as `load` does."""
    model: ModelConfig = _choose("model", values, "model")
    return model


def first_line(error: Exception) -> str:
    """Return the first line of another library's error message."""
    return str(error).strip().split("\n")[0]


def _read(values: Any, origin: Origin) -> Config:
    special = {group: _chooser(group) for group in CHOICES if group not in LISTED}
    special |= {group: _list_chooser(group) for group in LISTED}
    try:
        return convert_dataclass(values, Config, "", special)
    except MisfitError as misfit:
        place = origin(misfit.key)
        raise ConfigError(f"{misfit.key}{misfit.problem}{f' ({place})' if place else ''}; {misfit.fix}") from misfit


def _chooser(group: str) -> Callable[[Any, str], Any]:
    return lambda value, key: _choose(group, value, key)


def _list_chooser(group: str) -> Callable[[Any, str], Any]:
    return lambda value, key: {
        name: _choose(group, item, join(key, name)) for name, item in _mapping(value, key).items()
    }


def _choose(group: str, value: Any, key: str) -> Any:
    """Build the class that the `name` in a group's values stands for."""
    options = CHOICES[group]
    if "name" not in _mapping(value, key):
        raise MisfitError(f"{key}.name", ": missing", f"each option of {group} says its name: {', '.join(options)}")
    name = value["name"]
    if not isinstance(name, str) or name not in options:
        fix = f"{did_you_mean(str(name), list(options))}allowed: {', '.join(options)}"
        raise MisfitError(f"{key}.name", f"={name}: no such {group}", fix)
    # the sources of a mixture are options themselves
    special = {"sources": _list_chooser(group)} if group == "data" else None
    return convert_dataclass(value, options[name], key, special)


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MisfitError(
            key, f"={value} must be an option of the group {key}", f"one of: {', '.join(CHOICES[key.split('.')[0]])}"
        )
    return value
