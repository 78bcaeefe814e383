"""The rules of `ops/rules` applied in place to many parameters at once: the fast path of the optimizer.

Names say how: `fused_` calls one kernel of torch, `foreach_` a few kernels over lists of tensors, `batched_` stacks
matrices of one shape, `gram_` reads `xᵀ x` in place of the inputs x. `tests/laws/test_rule_laws.py` compares each with
the rule that it replaces.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.adamw import adamw as torch_adamw

from nested_learning.ops.orthogonal import newton_schulz
from nested_learning.ops.rules.adamw import TINY, AdamWState
from nested_learning.ops.rules.dgd import DGDState
from nested_learning.ops.rules.functions import FUNCTIONS
from nested_learning.ops.rules.gd import GDState
from nested_learning.ops.rules.m3 import M3State
from nested_learning.ops.rules.momentum import MomentumState
from nested_learning.ops.rules.muon import MuonState, muon_scale
from nested_learning.shapes import Tensor

State = Any


def update(
    rule: str, parameters: Sequence[Tensor], gradients: Sequence[Tensor], states: Sequence[State], **keywords: Any
) -> list[State]:
    """Make one update of every parameter in place, by the fast path where the rule has one; return the new states.

    `keywords` are those of the rule; a rule that reads inputs gets their `grams` (`xᵀ x`) instead. The tensors of the
    old states may be overwritten.
    """
    if rule in FAST:
        return FAST[rule](parameters, gradients, states, **keywords)
    return naive_update(rule, parameters, gradients, states, **keywords)


def naive_update(
    rule: str, parameters: Sequence[Tensor], gradients: Sequence[Tensor], states: Sequence[State], **keywords: Any
) -> list[State]:
    """Do the same as `update` with the rule's readable form, one parameter after another."""
    new_states = []
    for parameter, gradient, state in zip(parameters, gradients, states, strict=True):
        weights, new_state = FUNCTIONS[rule].update(parameter, gradient, state, **keywords)
        parameter.copy_(weights)
        new_states.append(new_state)
    return new_states


def fused_adamw(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[AdamWState],
    *,
    lr: float,
    weight_decay: float,
    betas: Sequence[float],
    eps: float,
) -> list[AdamWState]:
    """Make an AdamW update by the kernel of `torch.optim.AdamW(fused=True)`. Source: ops/rules/adamw.py."""
    # the kernel adds 1 to these counts in place; the state keeps plain integers, which need no synchronisation to read
    counts = torch.tensor([state.num_updates for state in states], dtype=torch.float32).to(parameters[0].device)
    torch_adamw(
        list(parameters),
        list(gradients),
        [state.mean for state in states],
        [state.square for state in states],
        [],
        list(counts.unbind()),
        fused=True,
        amsgrad=False,
        beta1=betas[0],
        beta2=betas[1],
        lr=lr,
        weight_decay=weight_decay,
        eps=eps,
        maximize=False,
    )
    return [state._replace(num_updates=state.num_updates + 1) for state in states]


def foreach_gd(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[GDState],
    *,
    lr: float,
    weight_decay: float,
) -> list[GDState]:
    """Make a step of gradient descent in a few kernels for all parameters. Source: ops/rules/gd.py."""
    torch._foreach_mul_(list(parameters), 1 - lr * weight_decay)
    # after the decay: both use the old weights, as in `w (1 - lr decay) - lr g`
    torch._foreach_add_(list(parameters), list(gradients), alpha=-lr)
    return list(states)


def foreach_momentum(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[MomentumState],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
) -> list[MomentumState]:
    """Make a momentum update in a few kernels for all parameters. Source: ops/rules/momentum.py."""
    steps = [state.momentum for state in states]
    torch._foreach_mul_(steps, momentum)
    torch._foreach_add_(steps, list(gradients), alpha=-lr)
    torch._foreach_mul_(list(parameters), 1 - lr * weight_decay)
    torch._foreach_add_(list(parameters), steps)
    return list(states)


def gram_dgd(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[DGDState],
    *,
    lr: float,
    weight_decay: float,
    input_decay: float,
    grams: Sequence[Tensor],
) -> list[DGDState]:
    """Make a DGD update from `xᵀ x`, which is all that the rule needs of the inputs.

    The system to solve has as many equations as the input has features; that of the readable form has as many as there
    are inputs. Source: ops/rules/dgd.py.
    """
    # `(w - lr g) (I + lr xᵀ x)⁻¹`: first gradient descent, then the solve, from the right
    foreach_gd(parameters, gradients, [GDState() for _ in states], lr=lr, weight_decay=weight_decay)
    for parameter, gram in zip(parameters, grams, strict=True):
        system = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) + lr * input_decay * gram
        parameter.copy_(torch.linalg.solve(system, parameter, left=False))
    return list(states)


def batched_muon(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[MuonState],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
) -> list[MuonState]:
    """Make a Muon update with one Newton-Schulz iteration for all matrices of one shape. Source: ops/rules/muon.py."""
    means = [state.momentum for state in states]
    torch._foreach_lerp_(means, list(gradients), 1 - momentum)
    # Nesterov: one more step of the running mean, with the same gradient
    aheads = torch._foreach_lerp(list(gradients), means, momentum)
    torch._foreach_mul_(list(parameters), 1 - lr * weight_decay)
    for parameter, step in zip(parameters, _orthogonal(aheads), strict=True):
        parameter.add_(step, alpha=-lr * muon_scale(parameter))
    return list(states)


def batched_m3(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[M3State],
    *,
    lr: float,
    weight_decay: float,
    slow_weight: float,
    slow_every: int,
    eps: float,
) -> list[M3State]:
    """Make an M3 update with one Newton-Schulz iteration for all matrices of one shape. Source: ops/rules/m3.py."""
    # the slow momentum takes the gradients before this one, so it is updated before the new gradient is added
    due = [state for state in states if state.num_updates > 0 and state.num_updates % slow_every == 0]
    for state in due:
        state.slow.add_(state.waiting)
        state.waiting.zero_()
    for state, step in zip(due, _orthogonal([state.slow for state in due]), strict=True):
        # reused until the slow momentum changes again
        state.slow_step.copy_(step)
    torch._foreach_mul_(list(parameters), 1 - lr * weight_decay)
    torch._foreach_add_([state.waiting for state in states], list(gradients))
    torch._foreach_add_([state.fast for state in states], list(gradients))
    fast_steps = _orthogonal([state.fast for state in states])
    for parameter, g, state, step in zip(parameters, gradients, states, fast_steps, strict=True):
        # only `square` itself is state; `clamp` makes the copy that the in-place root and sum work on
        size = state.square.addcmul_(g, g).clamp(min=TINY).sqrt_().add_(eps)
        parameter.addcdiv_(step.add_(state.slow_step, alpha=slow_weight), size, value=-lr)
    return [state._replace(num_updates=state.num_updates + 1) for state in states]


def _orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalise many matrices; those of one shape and dtype are stacked and share one iteration."""
    # layers repeat a few shapes: a few large batches of products instead of many small ones
    members: dict[tuple[torch.Size, torch.dtype], list[int]] = {}
    for index, matrix in enumerate(matrices):
        members.setdefault((matrix.shape, matrix.dtype), []).append(index)
    orthogonal: dict[int, Tensor] = {}
    for indices in members.values():
        orthogonal |= zip(indices, newton_schulz(torch.stack([matrices[i] for i in indices])).unbind(), strict=True)
    return [orthogonal[index] for index in range(len(matrices))]


FAST: dict[str, Callable[..., list[State]]] = {
    "gd": foreach_gd,
    "momentum": foreach_momentum,
    "dgd": gram_dgd,
    "adamw": fused_adamw,
    "muon": batched_muon,
    "m3": batched_m3,
}
