"""Compiling what is trained: tried at the start, on a real batch, and given up with the reason where it cannot be."""

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
    """What was asked for and what is: off, regional or full; `reason`: why they differ, "" where they do not."""

    asked: str
    active: str
    reason: str

    def __str__(self) -> str:
        if self.asked == self.active:
            return f"compile={self.asked}"
        return f"compile={self.asked}: not possible here, goes on uncompiled ({self.reason})"


def compile_training(training: Training, how: str, batch: Batch | None, dtype: torch.dtype, world: World) -> Compiled:
    """Compile the model in `training`, in place, and try it: one forward and one backward pass of `batch`.

    "regional": each block by itself, which costs as much for any number of them; "full": the whole forward pass. Where
    any process fails all go on uncompiled. Leaves neither gradients nor used random numbers.
    """
    if how == "off":
        return Compiled(how, how, "")
    assert batch is not None, "nothing to try it with"
    # what is dropped is what would be without the compiler
    torch._inductor.config.fallback_random = True
    modules = regions(training.model, how)
    for module in modules:
        module.compile()
    reason = problem(training, batch, dtype)
    (failures,) = world.sum([float(bool(reason))])
    if not failures:
        return Compiled(how, how, "")
    for module in modules:
        # what `compile` sets, and nothing else unsets
        module._compiled_call_impl = None
    return Compiled(how, "off", reason or "another process failed")


def regions(model: LanguageModel, how: str) -> Sequence[nn.Module]:
    """Return the modules that are compiled, each by itself."""
    return list(model.blocks) if how == "regional" else [model]


def problem(training: Training, batch: Batch, dtype: torch.dtype) -> str:
    """Make one forward and one backward pass; return what went wrong in one line, "" for nothing."""
    device = batch.tokens.device
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            with autocast(device, dtype):
                step = training(batch)
            step.loss.backward()
    # all that torch's compiler raises is the first; without a compiler of C++ it may be one of the others
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return " ".join(str(error).split("\n\n")[0].split())[:300] or type(error).__name__
    finally:
        for parameter in training.parameters():
            parameter.grad = None
    return ""
