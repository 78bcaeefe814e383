"""The environment of a run: package versions, git commit and diff, the command."""

import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

CODE = Path(__file__).parents[2]
PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "safetensors", "einops", "jaxtyping", "tokenizers")


def describe_environment(device: str) -> dict[str, Any]:
    """Return versions, git commit and diff (null outside a checkout), command and device."""
    return {
        "command": shlex.join([sys.executable, *sys.argv]),
        "device": device,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, str] | None:
    """Return the commit of this code and the diff to it; None outside of a git checkout."""
    root = _git("rev-parse", "--show-toplevel")
    commit = _git("rev-parse", "HEAD")
    if root is None or commit is None or Path(root).resolve() != CODE.resolve():
        return None
    return {"commit": commit, "diff": _git("diff", "HEAD") or ""}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", CODE, *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    # a diff can contain bytes that are not UTF-8
    return done.stdout.decode(errors="replace").strip()
