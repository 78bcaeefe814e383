"""Residual dropout, and a context for evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn


def residual_dropout(rate: float) -> nn.Module:
    """Return the dropout that is applied to everything added to the residual stream (arXiv 1207.0580).

    It is the identity with `rate` 0 and in eval mode; otherwise it draws from torch's global generator, which the
    trainer seeds for each micro-batch.
    """
    return nn.Dropout(rate) if rate else nn.Identity()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into eval mode, without dropout, inside the context; compiled parts then run uncompiled.

    They would otherwise be compiled again, for eval mode and for each new shape.
    """
    was_training = model.training
    is_compiled = any(module._compiled_call_impl is not None for module in model.modules())
    model.eval()
    try:
        # only where something is compiled: set_stance imports the compiler, which takes seconds
        with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
            yield
    finally:
        model.train(was_training)
