"""A second reading of a batch under watch: which operation left the finite numbers first, and how large all is."""

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

# so many of them are noted; those that follow are echoes
OPERATIONS = 8
# letters in which a process tells the others of one of them
LONGEST = 1000


class Origin(NamedTuple):
    """An operation that made numbers that are not finite out of finite ones, or NaN out of infinite ones."""

    operation: str
    module: str
    is_backward: bool
    shape: tuple[int, ...]
    num_nan: int
    num_inf: int
    is_mask: bool
    rank: int

    def __str__(self) -> str:
        """Say it in one line."""
        direction = "backward" if self.is_backward else "forward"
        made = ", ".join(f"{n} {kind}" for n, kind in ((self.num_nan, "NaN"), (self.num_inf, "infinite")) if n)
        where = f"`{self.operation}` in `{self.module}` ({direction}, process {self.rank})"
        return f"{where}: {made} in an output of shape {list(self.shape)}"


@dataclass
class Findings:
    """What the second reading of a batch showed.

    `origins`: the first operations that left the finite numbers, in order; `activations`: the norm of what each module
    with parameters of its own gave, over all micro-batches; `nats`: the sums of the rows of each micro-batch.
    """

    origins: list[Origin] = field(default_factory=list)
    activations: dict[str, float] = field(default_factory=dict)
    nats: list[Tensor] = field(default_factory=list)

    @property
    def first(self) -> Origin | None:
        """The operation to look at; negative infinity alone is what masks are made of."""
        return next((origin for origin in self.origins if not origin.is_mask), next(iter(self.origins), None))


class Watch(TorchDispatchMode):
    """Sees every operation, forward and backward, and notes where finite numbers became others."""

    def __init__(self, found: list[Origin], rank: int) -> None:
        super().__init__()
        self.found, self.rank = found, rank
        self.tracker = ModuleTracker()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and compare what it takes with what it gives."""
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        before = [count for leaf in given if (count := not_finite(leaf)) != (0, 0)]
        output = func(*args, **kwargs)
        # memory that nothing was written to holds anything, messages bring what another process made, and a constant is
        # what it was meant to be
        is_empty_or_message = any(word in str(func) for word in ("empty", "c10d", "fsdp"))
        if len(self.found) == OPERATIONS or is_empty_or_message or any(is_constant(leaf) for leaf in given):
            return output
        for leaf in tree_leaves(output):
            num_nan, num_inf = not_finite(leaf)
            if (num_nan and not any(nan for nan, _ in before)) or (num_inf and not before):
                is_mask = not num_nan and not bool(torch.isposinf(leaf).any())
                where, backward, shape = place(self.tracker.parents), self.tracker.is_bw, tuple(leaf.shape)
                self.found.append(Origin(str(func), where, backward, shape, num_nan, num_inf, is_mask, self.rank))
        return output


@contextmanager
def looking(training: nn.Module, model: nn.Module, world: World) -> Iterator[Findings]:
    """Watch what is read in the context: every operation, the output of every module of `model` that has parameters.

    `training` gives a `Step`. Compiled code runs uncompiled, or there would be nothing to see. All processes look, and
    all know afterwards what the first of them that saw something saw.
    """
    found = Findings()
    squares: dict[str, float] = defaultdict(float)

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _arguments: Any, output: Any) -> None:
            # a memory gives its output before its state
            first = next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
            squares[name] += float(first.detach().float().square().sum())

        return hook

    def keep(_module: nn.Module, _arguments: Any, step: Step) -> None:
        found.nats.append(step.nats.detach().double().sum(1).cpu())

    owners = {name: each for name, each in model.named_modules() if any(True for _ in each.parameters(recurse=False))}
    handles = [each.register_forward_hook(note(name)) for name, each in owners.items()]
    handles.append(training.register_forward_hook(keep))
    watch = Watch(found.origins, world.rank)
    try:
        with torch.compiler.set_stance("force_eager"), watch.tracker, watch:
            yield found
    finally:
        for handle in handles:
            handle.remove()
    found.activations = {name: square**0.5 for name, square in squares.items()}
    found.origins = agree(found, world)


def agree(found: Findings, world: World) -> list[Origin]:
    """Return the origins of this process, or, where it saw none, the first that another process saw."""
    text = "" if found.first is None else json.dumps(found.first)[:LONGEST]
    # text travels as the numbers of its letters
    codes = [float(ord(letter)) for letter in text.ljust(LONGEST)]
    told = ["".join(chr(int(code)) for code in each).strip() for each in world.gather(codes)]
    return found.origins or [Origin(*json.loads(each)) for each in told if each][:1]


def not_finite(leaf: Any) -> tuple[int, int]:
    """Count the numbers of a tensor that are NaN, and that are infinite; of anything else none.

    Of a tensor that is spread over processes each counts what it has when it computes with it, not here.
    """
    if type(leaf) not in (torch.Tensor, nn.Parameter) or not leaf.is_floating_point() or leaf.is_meta:
        return 0, 0
    values = leaf.detach()
    if bool(torch.isfinite(values).all()):
        return 0, 0
    return int(torch.isnan(values).sum()), int(torch.isinf(values).sum())


def is_constant(leaf: Any) -> bool:
    """Say whether an argument is a number that is not finite, as the one that a mask is filled with."""
    return isinstance(leaf, float) and not math.isfinite(leaf)


def place(parents: set[str]) -> str:
    """Return the innermost of the modules that are being run, by its name in the model."""
    inner = max(parents - {"Global"}, key=len, default="outside of the model")
    return inner.partition(".model.")[2] or inner


@torch.no_grad()
def parameter_norms(model: nn.Module, world: World) -> dict[str, tuple[float, float]]:
    """Return the norm of every parameter and of its gradient, 0 without one; the same on all processes."""
    return {name: (_norm(each, world), _norm(each.grad, world)) for name, each in model.named_parameters()}


def _norm(tensor: Tensor | None, world: World) -> float:
    return 0.0 if tensor is None else float(world.whole(tensor.detach().float().norm()))
