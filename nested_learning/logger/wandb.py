"""Weights & Biases: offline unless the user is logged in; a resumed run continues the same W&B run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from nested_learning.errors import ConfigError
from nested_learning.logger.protocol import Guarded, LoggedRun, Logger, Value

ID_FILE = "wandb_id"


@dataclass(kw_only=True)
class WandbConfig:
    """`project` and `entity` (None: the user's own) as W&B knows them; the environment's WANDB_* variables hold too."""

    name: str
    project: str
    entity: str | None

    def build(self, run: LoggedRun) -> Logger:
        """Open the W&B run inside `run.directory`; raise ConfigError when the package is missing."""
        return Guarded(self.name, lambda: WandbLogger(self, run))


class WandbLogger:
    """Sends metrics to one W&B run, whose files and id are in the run directory."""

    def __init__(self, config: WandbConfig, run: LoggedRun) -> None:
        wandb = _import()
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=run.name,
            id=_kept_id(run.directory),
            resume="allow",
            dir=run.directory,
            config=run.config,
            mode=_mode(wandb),
            # our console says where the run is; W&B's own banner would break the live line
            settings=wandb.Settings(silent=True, console="off"),
        )
        # plot over our step: W&B's own counts calls, and refuses smaller numbers after a resume
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Send the numbers of `values` and the step that they are drawn over."""
        numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
        self._run.log(numbers | {"step": step})

    def rewind(self, step: int) -> None:
        """Do nothing: W&B cannot delete entries; repeated steps log the same values again."""

    def close(self) -> None:
        """Finish the W&B run: upload, or leave it in the run directory for `wandb sync`."""
        self._run.finish()


def _import() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "logger=wandb needs the package wandb: pip install wandb, or leave logger=wandb out"
        ) from error
    return wandb


def _mode(wandb: Any) -> str | None:
    """Leave the choice to WANDB_MODE where it is set; otherwise be online only for a user who is logged in."""
    if "WANDB_MODE" in os.environ:
        return None
    host = urlsplit(wandb.Settings().base_url).hostname
    return "online" if "WANDB_API_KEY" in os.environ or _has_password(host) else "offline"


def _has_password(host: str | None) -> bool:
    """Say whether the user's netrc file, where `wandb login` leaves the key, has one for `host`."""
    # wandb.login() asks for a key instead, and its versions before 0.30 cannot be told not to
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, NetrcParseError):
        return False


def _kept_id(directory: Path) -> str:
    path = directory / ID_FILE
    if not path.exists():
        path.write_text(uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8")
