"""What computes the memories of a model: torch, or the operators of one of the backends."""

import torch
from torch import nn

from nested_learning.nn.designs import redesign
from nested_learning.ops.backend import resolve


def use_backend(model: nn.Module, backend: str, device: torch.device) -> str:
    """Let every memory in `model` be computed by `backend` (ops/backend.py); return one line that says by what.

    Results are the same to rounding. Raises ConfigError where it is asked for by name and cannot be had. Source: ours.
    """
    chosen, reason = resolve(backend, device)
    redesign(model, backend=chosen)
    return reason
