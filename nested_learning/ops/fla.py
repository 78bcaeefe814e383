"""Matrix memories computed by flash-linear-attention, for the designs it has kernels for: the gated delta rule.

    pip install -e '.[fla]'

Its kernels multiply float32 in TF32, and bfloat16 where `torch.set_float32_matmul_precision("medium")` is set.
"""

from typing import NamedTuple

import torch

from nested_learning.errors import ConfigError
from nested_learning.ops.gates import Gates
from nested_learning.ops.matrix import constant_errors
from nested_learning.ops.memory import Design, Memory, Tokens, Weights
from nested_learning.shapes import Float, Tensor


class GatedDelta(NamedTuple):
    """The inputs of the gated delta rule: `S <- a S`, then `S <- S + beta k^T (v - k S)`."""

    value: Float[Tensor, "*n c o"]
    log_retention: Float[Tensor, "*n c"]
    beta: Float[Tensor, "*n c"]


def misfit(gates: Gates, design: Design) -> str | None:
    """Return the setting in which a memory differs from the gated delta rule; None: it does not differ."""
    if gates.log_momentum is not None:
        return "momentum=gate"
    if design.reads_chunk_start:
        return "gradient=chunk"
    if design.num_erasures == 0:
        return "objective=dot with rule=gd"
    return "read=chunk" if design.read == "chunk" else None


def as_gated_delta(tokens: Tokens, base: Weights | None, design: Design) -> GatedDelta:
    """Write `W_t = a W_{t-1} - r k^T (n k W_{t-1} + s)` as the gated delta rule: `beta = n r / a`, `v = -a s / n`.

    Source: the rule is that of Gated DeltaNet (arXiv 2412.06464, equation 10).
    """
    gates = tokens.gates
    retention = gates.log_retention.exp()
    value = -retention[..., None] * constant_errors(tokens.k, tokens.v, base, design) / design.num_erasures
    return GatedDelta(value, gates.log_retention, design.num_erasures * gates.rate / retention)


def chunks(
    tokens: Tokens, memory: Memory, base: Weights | None, design: Design
) -> tuple[Float[Tensor, "b h n c o"], Memory]:
    """Compute `matrix.chunks` with fla's kernels. Raises ConfigError if they do not support the design."""
    wrong = misfit(tokens.gates, design)
    if wrong is not None:
        raise ConfigError(f"backend=fla has no kernel for memories with {wrong}; use backend=triton")
    # an optional package
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    over_chunks = None if base is None else (base[0][..., None, :, :],)
    q = tokens.q
    delta = as_gated_delta(tokens, over_chunks, design)
    dtype = torch.bfloat16 if torch.get_float32_matmul_precision() == "medium" else q.dtype
    # fla reads [b t h d]
    qkv = [x.flatten(2, 3).transpose(1, 2).to(dtype) for x in (q, tokens.k, delta.value)]
    log_retention, beta = (x.flatten(2, 3).transpose(1, 2) for x in delta[1:])
    y, end = chunk_gated_delta_rule(
        *qkv, log_retention, beta, scale=1.0, initial_state=memory.weight[0], output_final_state=True
    )
    y = y.to(q.dtype).transpose(1, 2).unflatten(2, q.shape[2:4])
    return y if over_chunks is None else y + q @ over_chunks[0], Memory((end,), (end,), (), 0)
