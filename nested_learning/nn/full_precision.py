"""A context without autocast, for norms, gates, memories and their updates."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which products are computed in the types that they are given. Source: ours."""
    # nothing is computed on the meta device, and it knows no autocast
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
