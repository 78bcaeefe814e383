"""Matrix memories over a whole sequence as one operator in C++: the results of ops/matrix.py, fused.

It is registered with torch as one operator with a derivative, which autograd and torch.compile treat as one step. The
forward pass stores the memory at the start of every chunk; the backward pass recomputes each chunk from it. Second
derivatives use the eager form (ops/chunked.py).
"""

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from nested_learning.ops import cpp
from nested_learning.ops.chunked import chunked
from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Design, Memory, Tokens, Weights
from nested_learning.shapes import Float, Tensor

# a tensor or None each
Optional = tuple[Tensor | None, ...]

INPUTS = (
    "Tensor? q, Tensor k, Tensor v, Tensor rate, Tensor log_retention, Tensor? log_momentum, "
    "Tensor reference, Tensor weight, Tensor? momentum, Tensor? base"
)
NUM_INPUTS = 10
DESIGN = "str objective, bool erase, str gradient, str read, int chunk, int position"
NUM_DESIGN = 6


def matrix_memory(
    tokens: Tokens, memory: Memory, base: Weights | None, design: Design, *, read: bool = True
) -> tuple[Float[Tensor, "..."], Memory]:
    """`naive_associative` of a matrix memory; with `read=False` only the memory is computed, and y is empty."""
    q, k, v, gates = tokens
    momentum = memory.momentum[0] if memory.momentum else None
    inputs = (
        q if read else None,
        k,
        v,
        *gates,
        memory.reference[0],
        memory.weight[0],
        momentum,
        None if base is None else base[0],
    )
    # without a backward pass, the states at the starts of chunks are not stored
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    choices = (design.objective, design.erase, design.gradient, design.read, design.chunk, memory.position)
    y, reference, weight, speed, _ = torch.ops.nested_learning.matrix_forward(*inputs, *choices, keep)
    position = (memory.position + k.shape[2]) % design.chunk
    return y, Memory((reference,), (weight,), (speed,) if memory.momentum else (), position)


def design_of(choices: tuple[Any, ...]) -> Design:
    """Return the design from the arguments of the operator, which can be numbers and strings only."""
    objective, erase, gradient, read, chunk, _ = choices
    return Design(objective, erase, gradient, read, False, False, chunk)


def sizes(k: Tensor, v: Tensor, choices: tuple[Any, ...]) -> list[int]:
    """Return the numbers of csrc/matrix_memory.cpp:Sizes, in its order."""
    design, position = design_of(choices), choices[-1]
    numbers = (design.num_erasures, design.reads_chunk_start, design.num_reads, design.read == "token")
    return [*k.shape, v.shape[-1], design.chunk, position, *map(int, numbers), torch.get_num_threads()]


def dense(x: Tensor | None) -> Tensor | None:
    """Return `x` contiguous; gates and states are small, so that a copy is cheap."""
    return None if x is None else x.contiguous()


def in_rows(x: Tensor | None) -> Tensor | None:
    """Return `[b h t d]` with a contiguous last dimension; most inputs have one and are not copied."""
    return x if x is None or x.stride(-1) == 1 else x.contiguous()


def empty_tokens(like: Tensor | None, width: int | torch.SymInt | None = None) -> Tensor | None:
    """Return an empty `[b h t width]` with the strides of `[b t h width]`."""
    # the layout of the layers around a memory, which split and merge heads without a copy then
    if like is None:
        return None
    b, h, t, own = like.shape
    return like.new_empty(b, t, h, own if width is None else width).transpose(1, 2)


def empty_state(like: Tensor | None) -> Tensor | None:
    """Return an empty contiguous tensor for gates or a matrix."""
    return None if like is None else torch.empty_like(like, memory_format=torch.contiguous_format)


def fill_none(tensors: Optional, like: Tensor) -> tuple[Tensor, ...]:
    """Replace each None by an empty tensor: a custom operator cannot return None."""
    return tuple(like.new_empty(0) if x is None else x for x in tensors)


def make_outputs(*arguments: Any) -> Optional:
    """Allocate y, the reference, weight and momentum after the call, and the states at the start of every chunk."""
    (q, k, v, *_, weight, momentum, _), (chunk, position, keep) = arguments[:NUM_INPUTS], arguments[-3:]
    b, h, t, i = k.shape
    shape = (b, h, -(-(position + t) // chunk), 1 if momentum is None else 2, i, v.shape[-1])
    states = map(empty_state, (weight, weight, momentum))
    return (empty_tokens(q, v.shape[-1]), *states, k.new_empty(shape) if keep else None)


@torch.library.custom_op(
    "nested_learning::matrix_forward",
    mutates_args=(),
    schema=f"({INPUTS}, {DESIGN}, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def matrix_forward(*arguments: Any) -> tuple[Tensor, ...]:
    """Return y, the memory after the call and, with `keep`, the states `[W; S]` at the start of every chunk."""
    (q, k, v), states, choices = arguments[:3], arguments[3:NUM_INPUTS], arguments[NUM_INPUTS:-1]
    y, *after, starts = outputs = make_outputs(*arguments)
    # the order of the enums Tensors and Arrays in csrc/matrix_memory.cpp; None where only the backward pass has one
    views = (*map(in_rows, (q, k, v)), y, None, None, None, None)
    arrays = (*map(dense, states), starts, *after, *[None] * 7)
    cpp.call("matrix_forward", sizes(k, v, choices), views, arrays)
    return fill_none(outputs, k)


@matrix_forward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    return fill_none(make_outputs(*arguments), arguments[1])


@torch.library.custom_op(
    "nested_learning::matrix_backward",
    mutates_args=(),
    schema=(
        f"({INPUTS}, Tensor starts, Tensor? dy, Tensor? d_reference, Tensor? d_weight, Tensor? d_momentum, {DESIGN})"
        f" -> ({', '.join(['Tensor'] * NUM_INPUTS)})"
    ),
)
def matrix_backward(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradients of the inputs; an empty tensor where an input is None."""
    inputs, (starts, dy, *d_after), choices = (
        arguments[:NUM_INPUTS],
        arguments[NUM_INPUTS:-NUM_DESIGN],
        arguments[-NUM_DESIGN:],
    )
    q, k, v, *states, base = inputs
    # the loss may depend on the memory after the call alone
    if q is not None and dy is None:
        dy = q.new_zeros(*q.shape[:-1], v.shape[-1])
    d_tokens = [empty_tokens(x) for x in (q, k, v)]
    d_states = list(map(empty_state, states))
    # all rows use one base, and threads work on rows: each writes its own gradient, and the sum is taken below
    d_base = None if base is None else base.new_empty(len(k), *base.shape)
    views = (*map(in_rows, (q, k, v)), None, *d_tokens, in_rows(dy))
    arrays = (*map(dense, (*states, base)), starts, *map(dense, d_after), *d_states, d_base)
    cpp.call("matrix_backward", sizes(k, v, choices), views, arrays)
    return fill_none((*d_tokens, *d_states, None if d_base is None else d_base.sum(0)), k)


@matrix_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    q, k, v, *others = arguments[:NUM_INPUTS]
    return fill_none((empty_tokens(q), empty_tokens(k), empty_tokens(v), *map(empty_state, others)), k)


def keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save the inputs and the states at the start of every chunk, the last output of the operator."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:NUM_INPUTS], output[-1])
    ctx.choices = inputs[NUM_INPUTS:-1]


def backward(ctx: Any, *after: Tensor | None) -> Optional:
    """Return the gradients of the inputs, by the eager form where they must be differentiable themselves."""
    *inputs, starts = ctx.saved_tensors
    # on in a backward pass only with create_graph=True
    if torch.is_grad_enabled():
        gradients = eager_gradients(tuple(inputs), after[:-1], ctx.choices)
    else:
        computed = torch.ops.nested_learning.matrix_backward(*inputs, starts, *after[:-1], *ctx.choices)
        gradients = tuple(None if x is None else d for x, d in zip(inputs, computed, strict=True))
    # no gradients for the design and for `keep`
    return (*gradients, *[None] * (NUM_DESIGN + 1))


def eager_gradients(inputs: Optional, after: Optional, choices: tuple[Any, ...]) -> Optional:
    """Return the gradients of the eager form, as functions of the inputs and of the gradients `after`."""
    # views: where one input was computed from another, each gets only its direct gradient
    own = tuple(None if x is None else x.view_as(x) for x in inputs)
    q, k, v, rate, log_retention, log_momentum, *matrices = own
    assert k is not None and v is not None and rate is not None and log_retention is not None
    reference, weight, momentum, base = (() if x is None else (x,) for x in matrices)
    memory = Memory(reference, weight, momentum, choices[-1])
    tokens = Tokens(k if q is None else q, k, v, Gates(rate, log_retention, log_momentum))
    y, memory = chunked(tokens, memory, base or None, design_of(choices))
    outputs = (y, *memory.reference, *memory.weight, *(memory.momentum or (None,)))
    pairs = [(x, d) for x, d in zip(outputs, after, strict=True) if d is not None]
    leaves = [x for x in own if x is not None and x.requires_grad]
    results, d_results = zip(*pairs, strict=True)
    d_leaves = iter(torch.autograd.grad(results, leaves, d_results, create_graph=True, allow_unused=True))
    return tuple(next(d_leaves) if x is not None and x.requires_grad else None for x in own)


matrix_forward.register_autograd(backward, setup_context=keep_for_backward)


def count_forward(*shapes: Any, **_: Any) -> int:
    """Count the multiplications and additions in the matrix products of one call."""
    (b, h, t, i), (_, _, _, o), momentum, base = shapes[1], shapes[2], shapes[8], shapes[9]
    choices = shapes[NUM_INPUTS : NUM_INPUTS + NUM_DESIGN]
    design, chunk = design_of(choices), choices[-2]
    reads = shapes[0] is not None
    # `matrices`: products of a token with a state or base [i o]; `scores`: products between the tokens of a chunk
    matrices = (1 if momentum is None else 2) * (1 + (design.num_erasures > 0) + (reads and design.read == "token"))
    matrices += (design.num_reads > 0 and design.num_erasures == 0) + (reads and design.read == "chunk")
    matrices += 0 if base is None else reads + (design.num_reads > 0)
    scores = (design.num_erasures > 0) * (i + o / 2) + (reads and design.read == "token") * (i + o)
    return int(2 * b * h * t * (matrices * i * o + chunk * scores))


def count_backward(*shapes: Any, **_: Any) -> int:
    """Count those of the backward pass: two for each product of the forward pass; recomputation is not counted."""
    return 2 * count_forward(*shapes[:NUM_INPUTS], *shapes[-NUM_DESIGN:])


register_flop_formula(torch.ops.nested_learning.matrix_forward)(count_forward)
register_flop_formula(torch.ops.nested_learning.matrix_backward)(count_backward)
