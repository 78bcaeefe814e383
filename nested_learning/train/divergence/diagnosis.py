"""Diagnosis of a step that is not finite: it is computed again, and the first operations that broke are recorded."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker

from nested_learning.objective.protocol import Step
from nested_learning.shapes import Tensor
from nested_learning.world.world import World

# the first operations are recorded; later ones only pass the broken numbers on
MAX_OPERATIONS = 8
# characters of the message by which a process sends its first operation to the others
MESSAGE_LENGTH = 1000


class Origin(NamedTuple):
    """An operation that turned finite numbers into NaN or infinity, or infinite ones into NaN."""

    operation: str
    module: str
    is_backward: bool
    shape: tuple[int, ...]
    num_nan: int
    num_inf: int
    is_mask: bool
    rank: int

    def __str__(self) -> str:
        """Describe it in one line."""
        direction = "backward" if self.is_backward else "forward"
        made = ", ".join(f"{n} {kind}" for n, kind in ((self.num_nan, "NaN"), (self.num_inf, "infinite")) if n)
        where = f"`{self.operation}` in `{self.module}` ({direction}, process {self.rank})"
        return f"{where}: {made} in an output of shape {list(self.shape)}"


@dataclass
class Findings:
    """The findings of the second computation of a step.

    `origins`: the first operations with outputs that are not finite, in order; `activations`: the norm of the output
    of each module with parameters of its own, over all micro-batches; `nats`: the loss of the rows of each micro-batch.
    """

    origins: list[Origin] = field(default_factory=list)
    activations: dict[str, float] = field(default_factory=dict)
    nats: list[Tensor] = field(default_factory=list)

    @property
    def first(self) -> Origin | None:
        """The first operation that is no mask (masks are made of negative infinity), else the first."""
        return next((origin for origin in self.origins if not origin.is_mask), next(iter(self.origins), None))


class NonFiniteMode(TorchDispatchMode):
    """Checks every operation, forward and backward, and records those whose outputs stop being finite."""

    def __init__(self, found: list[Origin], rank: int) -> None:
        super().__init__()
        self.found, self.rank = found, rank
        self.tracker = ModuleTracker()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and compare its inputs with its outputs."""
        kwargs = kwargs or {}
        inputs = tree_leaves((args, kwargs))
        bad_inputs = [count for leaf in inputs if (count := not_finite(leaf)) != (0, 0)]
        output = func(*args, **kwargs)
        # uninitialized memory holds anything, a message holds what another process computed, and an infinite constant
        # is meant to be infinite: none of them is where a step broke
        is_empty_or_message = any(word in str(func) for word in ("empty", "c10d", "fsdp"))
        if len(self.found) == MAX_OPERATIONS or is_empty_or_message or any(is_constant(leaf) for leaf in inputs):
            return output
        for leaf in tree_leaves(output):
            num_nan, num_inf = not_finite(leaf)
            # NaN is new where no input had one; infinity is new where every input was finite
            if (num_nan and not any(nan for nan, _ in bad_inputs)) or (num_inf and not bad_inputs):
                is_mask = not num_nan and not bool(torch.isposinf(leaf).any())
                where, backward, shape = innermost(self.tracker.parents), self.tracker.is_bw, tuple(leaf.shape)
                self.found.append(Origin(str(func), where, backward, shape, num_nan, num_inf, is_mask, self.rank))
        return output


@contextmanager
def recording(training: nn.Module, model: nn.Module, world: World) -> Iterator[Findings]:
    """Record, while the context lasts, every operation and the output of every module of `model` with parameters.

    `training` returns a `Step`. Compiled modules run uncompiled, because a compiled one shows no operations. Every
    process must enter; afterwards each of them has at least the first finding of any.
    """
    found = Findings()
    squares: dict[str, float] = defaultdict(float)

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _arguments: Any, output: Any) -> None:
            # memories return (output, state)
            first = next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
            squares[name] += float(first.detach().float().square().sum())

        return hook

    def keep(_module: nn.Module, _arguments: Any, step: Step) -> None:
        found.nats.append(step.nats.detach().double().sum(1).cpu())

    owners = {name: each for name, each in model.named_modules() if any(True for _ in each.parameters(recurse=False))}
    handles = [each.register_forward_hook(note(name)) for name, each in owners.items()]
    handles.append(training.register_forward_hook(keep))
    mode = NonFiniteMode(found.origins, world.rank)
    try:
        with torch.compiler.set_stance("force_eager"), mode.tracker, mode:
            yield found
    finally:
        for handle in handles:
            handle.remove()
    found.activations = {name: square**0.5 for name, square in squares.items()}
    found.origins = share_origins(found, world)


def share_origins(found: Findings, world: World) -> list[Origin]:
    """Return the origins of this process or, where it has none, the first of another process."""
    text = "" if found.first is None else json.dumps(found.first)[:MESSAGE_LENGTH]
    # processes exchange floats only, so text is sent as character codes
    codes = [float(ord(letter)) for letter in text.ljust(MESSAGE_LENGTH)]
    messages = ["".join(chr(int(code)) for code in each).strip() for each in world.gather(codes)]
    return found.origins or [Origin(*json.loads(each)) for each in messages if each][:1]


def not_finite(leaf: Any) -> tuple[int, int]:
    """Return how many numbers of a tensor are NaN, and how many infinite; (0, 0) for anything else.

    A sharded tensor counts as nothing here: each process checks the local operations on its shard.
    """
    if type(leaf) not in (torch.Tensor, nn.Parameter) or not leaf.is_floating_point() or leaf.is_meta:
        return 0, 0
    values = leaf.detach()
    if bool(torch.isfinite(values).all()):
        return 0, 0
    return int(torch.isnan(values).sum()), int(torch.isinf(values).sum())


def is_constant(leaf: Any) -> bool:
    """Return whether an argument is a plain infinite or NaN number, such as the value of a mask."""
    return isinstance(leaf, float) and not math.isfinite(leaf)


def innermost(parents: set[str]) -> str:
    """Return the name of the innermost of the modules that are running."""
    inner = max(parents - {"Global"}, key=len, default="outside of the model")
    return inner.partition(".model.")[2] or inner


@torch.no_grad()
def parameter_norms(model: nn.Module, world: World) -> dict[str, tuple[float, float]]:
    """Return the norm of every parameter and of its gradient, 0 without one; the same on all processes."""
    return {name: (_norm(each, world), _norm(each.grad, world)) for name, each in model.named_parameters()}


def _norm(tensor: Tensor | None, world: World) -> float:
    return 0.0 if tensor is None else float(world.whole(tensor.detach().float().norm()))
