"""The environment of a run: package versions, git commit and diff, the command."""

import json
import platform
import shlex
import subprocess
import sys
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from nested_learning.files import write_atomic

ENVIRONMENT = "environment.json"
CODE = Path(__file__).parents[2]
PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "safetensors", "einops", "jaxtyping", "tokenizers")
# characters of a diff that are kept; of a longer one, `git diff --stat` with at most so many files
MAX_DIFF, MAX_FILES = 100_000, 200


def write_environment(directory: Path, step: int, device: str) -> None:
    """Write environment.json; when a run resumes, the entries of earlier processes move to the list `earlier`.

    An earlier diff that equals a later one keeps its sha256 only.
    """
    path = directory / ENVIRONMENT
    now: dict[str, Any] = {"from_step": step, **describe_environment(device), "earlier": []}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        now["earlier"] = [*before.pop("earlier"), before]
        known: set[str] = set()
        for git in [each["git"] for each in (now, *reversed(now["earlier"])) if each["git"] is not None]:
            # runs of earlier versions kept diffs of any length, without their sha256
            if "diff_sha256" not in git:
                git |= _bounded(git["diff"], "")
            if git["diff_sha256"] in known:
                git.pop("diff", None)
            known.add(git["diff_sha256"])
    write_atomic(path, json.dumps(now, indent=2) + "\n")


def note_environment(directory: Path, **facts: Any) -> None:
    """Add `facts` to environment.json."""
    path = directory / ENVIRONMENT
    write_atomic(path, json.dumps(json.loads(path.read_text(encoding="utf-8")) | facts, indent=2) + "\n")


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
    diff = _git("diff", "HEAD") or ""
    stat = _git("diff", "HEAD", f"--stat-count={MAX_FILES}", "--stat") if len(diff) > MAX_DIFF else ""
    return {"commit": commit, **_bounded(diff, stat or "")}


def _bounded(diff: str, stat: str) -> dict[str, str]:
    """Return the sha256 of `diff`, and `diff` itself, or `stat` and its beginning where it is too long."""
    kept = diff if len(diff) <= MAX_DIFF else f"{stat}\n\n{diff[:MAX_DIFF]}\n... cut, of {len(diff)} characters\n"
    return {"diff_sha256": sha256(diff.encode()).hexdigest(), "diff": kept}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", CODE, *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    # a diff can contain bytes that are not UTF-8
    return done.stdout.decode(errors="replace").strip()
