"""What a backward pass computes again instead of keeping it: `recompute=` off, block or chunk."""

from dataclasses import replace

from nested_learning.nn.associative import MemoryHeads
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.self_modifying import SelfModifyingMemory


def use_recompute(model: LanguageModel, kind: str) -> None:
    """Let `model` keep less for the backward pass, in place; results are the same.

    "block": of each block only what it read (arXiv 1604.06174), for one more forward pass of all blocks. "chunk": of
    matrix memories only what some of their chunks began with, for one more pass over the memories; memories of several
    layers always do. "off": all is kept that torch keeps. Source: ours.
    """
    model.recomputes_blocks = kind == "block"
    by_chunk = kind == "chunk"
    for module in model.modules():
        if isinstance(module, MemoryHeads):
            module.design = replace(module.design, recompute=by_chunk)
        elif isinstance(module, SelfModifyingMemory):
            generating, read = (
                replace(each, recompute=by_chunk) for each in (module.design.generating, module.design.read)
            )
            module.design = replace(module.design, generating=generating, read=read)
