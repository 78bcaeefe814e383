"""torch.compile for training: tried at the start on a real batch; where that fails, training runs uncompiled."""

import subprocess
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from nested_learning.data.batch import Batch
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.training import Training
from nested_learning.train.precision import autocast
from nested_learning.world.world import World


class Compiled(NamedTuple):
    """The configured mode `asked` and the `active` one: off, regional or full; `reason`: why they differ, else ""."""

    asked: str
    active: str
    reason: str

    def __str__(self) -> str:
        if self.asked == self.active:
            return f"compile={self.asked}"
        return f"compile={self.asked}: not possible here, training continues uncompiled ({self.reason})"


def compile_training(training: Training, how: str, batch: Batch | None, dtype: torch.dtype, world: World) -> Compiled:
    """Compile the model in `training`, in place, and try it: one forward and one backward pass of `batch`.

    "regional" compiles each block by itself, in a time that does not grow with their number; "full" the whole forward
    pass. If it fails on any process, all continue uncompiled. Gradients are cleared and random generators restored.
    """
    if how == "off":
        return Compiled(how, how, "")
    assert batch is not None, "compiling needs a batch to be tried with"
    # dropout then draws the same masks as without the compiler
    torch._inductor.config.fallback_random = True
    modules = regions(training.model, how)
    for module in modules:
        module.compile()
    reason = find_problem(training, batch, dtype)
    (failures,) = world.sum([float(bool(reason))])
    if not failures:
        return Compiled(how, how, "")
    for module in modules:
        # undoes `module.compile()`, for which torch has no public call
        module._compiled_call_impl = None
    return Compiled(how, "off", reason or "another process failed")


def regions(model: LanguageModel, how: str) -> Sequence[nn.Module]:
    """Return the modules to compile, each by itself."""
    return list(model.blocks) if how == "regional" else [model]


def find_problem(training: Training, batch: Batch, dtype: torch.dtype) -> str:
    """Run one forward and one backward pass; return the error in one line, "" when there is none."""
    device = batch.tokens.device
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            with autocast(device, dtype):
                step = training(batch)
            step.loss.backward()
    # torch's compiler raises RuntimeErrors; the others come from a missing or failing C++ compiler
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return " ".join(str(error).split("\n\n")[0].split())[:300] or type(error).__name__
    finally:
        for parameter in training.parameters():
            parameter.grad = None
    return ""
