"""How a model's memories are computed, for all of them at once: the backend, and what the backward pass recomputes."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nested_learning.nn.associative import MemoryHeads
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.self_modifying import SelfModifyingMemory
from nested_learning.ops.backend import resolve


def use_backend(model: nn.Module, backend: str, device: torch.device) -> str:
    """Compute every memory in `model` with `backend` (ops/backend.py); return one line that says what was chosen.

    Results are the same to rounding. Raises ConfigError for a backend that is not available on `device`.
    """
    chosen, reason = resolve(backend, device)
    change_designs(model, backend=chosen)
    return reason


def use_recompute(model: LanguageModel, kind: str) -> None:
    """Let `model` store less for the backward pass, in place; results are the same.

    "block": only the input of each block (arXiv 1604.06174), at the cost of one more forward pass. "chunk": only the
    states at the start of spans of chunks, at the cost of one more pass over the memories; memories of several layers
    always do this. "off": store what torch stores.
    """
    model.recomputes_blocks = kind == "block"
    change_designs(model, recompute=kind == "chunk")


def change_designs(model: nn.Module, **changes: Any) -> None:
    """Change fields of the design (`ops/memory.py:Design`) of every memory in `model`, in place."""
    for module in model.modules():
        if isinstance(module, MemoryHeads):
            module.design = replace(module.design, **changes)
        elif isinstance(module, SelfModifyingMemory):
            generating, read = (replace(each, **changes) for each in (module.design.generating, module.design.read))
            module.design = replace(module.design, generating=generating, read=read)
