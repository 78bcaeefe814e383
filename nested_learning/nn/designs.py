"""How the memories of a model are computed is a value beside their weights, which may be changed for all of them."""

from dataclasses import replace
from typing import Any

from torch import nn

from nested_learning.nn.associative import MemoryHeads
from nested_learning.nn.self_modifying import SelfModifyingMemory


def redesign(model: nn.Module, **changes: Any) -> None:
    """Change fields of the design (`ops/memory.py:Design`) of every memory in `model`, in place. Source: ours."""
    for module in model.modules():
        if isinstance(module, MemoryHeads):
            module.design = replace(module.design, **changes)
        elif isinstance(module, SelfModifyingMemory):
            generating, read = (replace(each, **changes) for each in (module.design.generating, module.design.read))
            module.design = replace(module.design, generating=generating, read=read)
