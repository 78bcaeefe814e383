"""Clipping of the gradients by their norm, all parameters taken together."""

from collections.abc import Iterable

import torch
from torch.nn import Parameter

from nested_learning.optim.processes import ALONE, Processes
from nested_learning.shapes import Float, Tensor


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[Parameter], max_norm: float | None, processes: Processes = ALONE
) -> Float[Tensor, ""]:
    """Scale the gradients down, in place, so that their common norm is at most `max_norm`; None only measures.

    Returns the norm before clipping. The gradients must be averaged over processes and micro-batches already; where
    they are sharded among `processes`, the norm is that of the whole ones.
    Source: Pascanu, Mikolov and Bengio, arXiv 1211.5063, algorithm 1.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return processes.whole(norm)
