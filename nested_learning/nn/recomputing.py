"""What a backward pass computes again instead of keeping it: `recompute=` off, block or chunk."""

from nested_learning.nn.designs import redesign
from nested_learning.nn.language_model import LanguageModel


def use_recompute(model: LanguageModel, kind: str) -> None:
    """Let `model` keep less for the backward pass, in place; results are the same.

    "block": of each block only what it read (arXiv 1604.06174), for one more forward pass of all blocks. "chunk": of
    matrix memories only what some of their chunks began with, for one more pass over the memories; memories of several
    layers always do. "off": all is kept that torch keeps. Source: ours.
    """
    model.recomputes_blocks = kind == "block"
    redesign(model, recompute=kind == "chunk")
