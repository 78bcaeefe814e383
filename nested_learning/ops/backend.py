"""The backends that compute memories, and which of them is used on a device."""

import importlib.util

import torch

from nested_learning.errors import ConfigError
from nested_learning.ops import cpp

# what "auto" uses where it is available; otherwise torch
AUTO = {"cpu": "cpp", "cuda": "triton"}
NAMES = {"triton": "kernels in Triton", "fla": "flash-linear-attention"}
INSTALL = {"triton": "pip install triton", "fla": "pip install -e '.[fla]'"}
BACKENDS = ("auto", "eager", "cpp", *NAMES)


def resolve(backend: str, device: torch.device) -> tuple[str, str]:
    """Return the backend that computes the memories, and one line for the log that says so and why.

    "auto" is "cpp" on a CPU with a compiler, "triton" on an NVIDIA GPU with Triton, and otherwise "eager" (torch).
    Raises ConfigError for a backend that is requested by name and not available.
    """
    if backend == "eager":
        return "eager", "memories are computed by torch (backend=eager)"
    wanted = AUTO.get(device.type) if backend == "auto" else backend
    if wanted is None:
        return "eager", f"memories are computed by torch: there are no operators for {device.type}"
    reason = missing(wanted, device)
    if reason is None:
        name = f"C++ operators ({cpp.library_path()})" if wanted == "cpp" else NAMES[wanted]
        return wanted, f"memories are computed by {name}"
    if backend == "auto":
        return "eager", f"memories are computed by torch: {reason}"
    raise ConfigError(f"backend={backend}: {reason}; use backend=eager")


def missing(backend: str, device: torch.device) -> str | None:
    """Say why `backend` cannot be used on `device`; None if it can."""
    if backend == "cpp":
        return cpp.missing(device)
    if device.type != "cuda":
        return f"{NAMES[backend]} are for CUDA, not {device.type}"
    if importlib.util.find_spec(backend) is None:
        return f"{backend} is not installed ({INSTALL[backend]})"
    return None
