"""A context without autocast, for norms, gates, memories and their updates."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context without autocast: products are computed in the dtype of their arguments."""
    # autocast does not support the meta device
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
