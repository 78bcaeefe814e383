"""Residual dropout, and the mode in which a model drops nothing."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn


def residual_dropout(share: float) -> nn.Module:
    """Return what is done to everything that is added to the residual stream: a `share` of its numbers becomes zero.

    The others are scaled up to the same mean (arXiv 1207.0580). The identity at share 0 and in eval mode; else it draws
    from torch's global generator, which whoever trains seeds for each piece of a batch.
    """
    return nn.Dropout(share) if share else nn.Identity()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into eval mode, in which nothing is dropped, and compiled parts run as written, while it lasts.

    Compiled parts would be compiled again, for eval mode and for each new shape.
    """
    was_training = model.training
    is_compiled = any(module._compiled_call_impl is not None for module in model.modules())
    model.eval()
    try:
        # imports the compiler
        with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
            yield
    finally:
        model.train(was_training)
