"""The scan over chunks on a GPU: `ops/steps.py:scan` and `scan_with_momentum` as one kernel, forward and backward.

One program holds a block of columns of the state Z = [W; S] of one row and head in registers and loops over the chunks.
The columns of `E = A Z + B`, `Z <- P Z - Y^T E` are independent of each other. The backward pass of the scan is the
same scan from the last chunk to the first. With G the gradient at the end of a chunk,

    dE = gE - Y G,    G <- P^T G + A^T dE + gZ

So one kernel computes both: A and Y are exchanged, the signs of their products change, P is transposed, and gZ is added
after every chunk. The gradients of A, Y and P are no recurrence; they are plain matrix products. Since the backward
pass is the operator itself, it can be differentiated any number of times.

`torch.set_float32_matmul_precision` sets the precision of the products: "highest" is float32, "high" TF32, "medium"
bfloat16. States and sums are float32.
"""

from typing import Any, NamedTuple, no_type_check

import torch
import triton
import triton.language as tl

from nested_learning.ops.triton.tiles import SMALLEST, load, store
from nested_learning.shapes import Float, Tensor

PRODUCTS = {"highest": "ieee", "high": "tf32", "medium": "bf16"}
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


class ScanInputs(NamedTuple):
    """A and Y `[r n c s]`, B `[r n c o]`, decays `[g r n]`, the first Z `[r s o]`, and gZ `[r n s o]` (None: 0)."""

    read_keys: Tensor | None
    constant: Tensor
    write_keys: Tensor | None
    decays: Tensor
    state: Tensor
    added: Tensor | None


class ScanOutputs(NamedTuple):
    """Z at the start of every chunk `[r n s o]`, E of every chunk `[r n c o]`, and the last Z `[r s o]`."""

    states: Tensor
    errors: Tensor
    end: Tensor


@triton.jit
@no_type_check
def _product(a, b, products: tl.constexpr):
    if products == "bf16":
        a, b = a.to(tl.bfloat16), b.to(tl.bfloat16)
        if INTERPRETED:
            # the interpreter has no bfloat16 product: it would multiply the bit patterns
            return tl.dot(a.to(tl.float32), b.to(tl.float32))
        else:  # noqa: RET505 (Triton must not compile a branch that is not taken)
            return tl.dot(a, b)
    else:
        return tl.dot(a, b, input_precision=products)


@triton.jit
@no_type_check
def _scan(inputs, outputs, num_chunks, sizes, blocks: tl.constexpr, back: tl.constexpr, products: tl.constexpr):
    read_keys, constant, write_keys, decays, state, added = inputs
    states, errors, end = outputs
    size: tl.constexpr = sizes[0]
    dim: tl.constexpr = sizes[1]
    dim_out: tl.constexpr = sizes[2]
    momentum: tl.constexpr = sizes[3]
    width: tl.constexpr = 2 * dim if momentum else dim
    sign: tl.constexpr = -1.0 if back else 1.0
    # 64-bit offsets: the states of all chunks together may be more than 2^31 numbers
    row, num_rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    i, o = tl.arange(0, blocks[1]), tl.program_id(1) * blocks[2] + tl.arange(0, blocks[2])
    w = load(state + row * width * dim_out, i, o, dim, dim_out, dim_out)
    if momentum:
        s = load(state + (row * width + dim) * dim_out, i, o, dim, dim_out, dim_out)
    for step in range(num_chunks):
        chunk = row * num_chunks + (num_chunks - 1 - step if back else step)
        store(states + chunk * width * dim_out, w, i, o, dim, dim_out, dim_out)
        next_w = tl.load(decays + chunk) * w
        if momentum:
            store(states + (chunk * width + dim) * dim_out, s, i, o, dim, dim_out, dim_out)
            pushed = tl.load(decays + num_rows * num_chunks + chunk)
            next_s = tl.load(decays + 2 * num_rows * num_chunks + chunk) * s
            if back:
                next_s += pushed * w
            else:
                next_w += pushed * s
        for first in range(0, size, blocks[0]):
            c = first + tl.arange(0, blocks[0])
            error = load(constant + chunk * size * dim_out, c, o, size, dim_out, dim_out)
            if read_keys is not None:
                at = read_keys + chunk * size * width
                error += sign * _product(load(at, c, i, size, dim, width), w, products)
                if momentum:
                    error += sign * _product(load(at + dim, c, i, size, dim, width), s, products)
            store(errors + chunk * size * dim_out, error, c, o, size, dim_out, dim_out)
            if write_keys is not None:
                at = write_keys + chunk * size * width
                next_w -= sign * _product(tl.trans(load(at, c, i, size, dim, width)), error, products)
                if momentum:
                    next_s -= sign * _product(tl.trans(load(at + dim, c, i, size, dim, width)), error, products)
        w = next_w
        if momentum:
            s = next_s
        if added is not None:
            w += load(added + chunk * width * dim_out, i, o, dim, dim_out, dim_out)
            if momentum:
                s += load(added + (chunk * width + dim) * dim_out, i, o, dim, dim_out, dim_out)
    store(end + row * width * dim_out, w, i, o, dim, dim_out, dim_out)
    if momentum:
        store(end + (row * width + dim) * dim_out, s, i, o, dim, dim_out, dim_out)


def launch(inputs: ScanInputs, *, back: bool) -> ScanOutputs:
    """Run the kernel over `[r n ...]` chunks, from the first to the last or, with `back`, in reverse."""
    assert all(x is None or x.dtype == torch.float32 for x in inputs), "the kernel computes in float32"
    num_rows, num_chunks, size, dim_out = inputs.constant.shape
    momentum = len(inputs.decays) > 1
    dim_state = inputs.state.shape[1]
    dim = dim_state // 2 if momentum else dim_state
    outputs = ScanOutputs(
        inputs.state.new_empty(num_rows, num_chunks, dim_state, dim_out),
        torch.empty_like(inputs.constant),
        torch.empty_like(inputs.state),
    )
    blocks = block_sizes(size, dim, dim_out)
    with torch.cuda.device_of(inputs.state):
        _scan[num_rows, triton.cdiv(dim_out, blocks[2])](
            tuple(inputs),
            tuple(outputs),
            num_chunks,
            tuple(tl.constexpr(each) for each in (size, dim, dim_out, momentum)),
            blocks=blocks,
            back=back,
            products=PRODUCTS[torch.get_float32_matmul_precision()],
            num_warps=4 if blocks[1] <= 64 else 8,
            num_stages=2,
        )
    return outputs


def block_sizes(size: int, dim: int, dim_out: int) -> tuple[int, int, int]:
    """Return the tokens, rows and columns of the state that a program holds at a time.

    They are chosen so that the state fits write_keys registers and the tiles of A and Y write_keys shared memory.
    """
    rows = max(SMALLEST, triton.next_power_of_2(dim))
    tokens = min(32 if rows <= 64 else SMALLEST, max(SMALLEST, triton.next_power_of_2(size)))
    columns = min(32 if rows <= 64 else SMALLEST, max(SMALLEST, triton.next_power_of_2(dim_out)))
    return tokens, rows, columns


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, back: bool, *inputs: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Run the kernel."""
        given = ScanInputs(*(None if x is None else x.contiguous() for x in inputs))  # type: ignore[arg-type]
        outputs = launch(given, back=back)
        ctx.back = back
        ctx.save_for_backward(given.read_keys, given.write_keys, given.decays, outputs.states, outputs.errors)
        return outputs.states, outputs.errors, outputs.end

    @staticmethod
    def backward(ctx: Any, d_states: Tensor, d_errors: Tensor, d_end: Tensor) -> tuple[Tensor | None, ...]:
        """Run the scan in reverse, then compute the gradients that are no recurrence."""
        read_keys, write_keys, decays, states, errors = ctx.saved_tensors
        ends, d_signal, d_state = _Scan.apply(not ctx.back, write_keys, d_errors, read_keys, decays, d_end, d_states)
        sign = -1.0 if ctx.back else 1.0
        d_read = None if read_keys is None else sign * (d_signal @ states.mT)
        d_into = None if write_keys is None else -sign * (errors @ ends.mT)
        d_decays = decays_gradient(ends, states, len(decays), back=ctx.back)
        return None, d_read, d_signal, d_into, d_decays, d_state, ends if ctx.needs_input_grad[-1] else None


def decays_gradient(
    ends: Float[Tensor, "r n s o"], states: Float[Tensor, "r n s o"], num_decays: int, *, back: bool
) -> Float[Tensor, "g r n"]:
    """Return the gradients of the decays (kept; or kept, pushed and momentum kept) from those at the ends of chunks."""
    if num_decays == 1:
        return (ends * states).sum((-2, -1))[None]
    d_weight, d_momentum = ends.chunk(2, dim=-2)
    weight, momentum = states.chunk(2, dim=-2)
    pushed = (d_momentum, weight) if back else (d_weight, momentum)
    pairs = ((d_weight, weight), pushed, (d_momentum, momentum))
    return torch.stack([(gradient * before).sum((-2, -1)) for gradient, before in pairs])


def run(
    read_keys: Float[Tensor, "b h n c s"] | None,
    constant: Float[Tensor, "b h n c o"],
    write_keys: Float[Tensor, "b h n c s"],
    decays: Float[Tensor, "g b h n"],
    state: Float[Tensor, "b h s o"],
) -> tuple[Float[Tensor, "b h n s o"], Float[Tensor, "b h n c o"], Float[Tensor, "b h s o"]]:
    """Scan with rows and heads flattened into one dimension."""
    rows = state.shape[:2]
    *chunks, start = [None if x is None else x.flatten(0, 1) for x in (read_keys, constant, write_keys, state)]
    outputs = _Scan.apply(False, *chunks, decays.flatten(1, 2), start, None)
    states, errors, end = (x.unflatten(0, rows) for x in outputs)
    return states, errors, end


def scan(
    read_keys: Float[Tensor, "b h n c i"] | None,
    constant: Float[Tensor, "b h n c o"],
    write_keys: Float[Tensor, "b h n c i"],
    decays: Float[Tensor, "b h n 1 1"],
    weight: Float[Tensor, "b h i o"],
) -> tuple[Float[Tensor, "b h n i o"], Float[Tensor, "b h n c o"], Float[Tensor, "b h i o"]]:
    """Compute `ops/steps.py:scan` in one kernel."""
    return run(read_keys, constant, write_keys, decays[None, ..., 0, 0], weight)


def scan_with_momentum(
    read_keys: Float[Tensor, "b h n c s"] | None,
    constant: Float[Tensor, "b h n c o"],
    write_keys: Float[Tensor, "b h n c s"],
    decays: Float[Tensor, "3 b h n 1 1"],
    state: Float[Tensor, "b h s o"],
) -> tuple[Float[Tensor, "b h n s o"], Float[Tensor, "b h n c o"], Float[Tensor, "b h s o"]]:
    """Compute `ops/steps.py:scan_with_momentum` in one kernel."""
    return run(read_keys, constant, write_keys, decays[..., 0, 0], state)
