"""The cases that memory.py measures: memories and attention, alone and inside layers, and other implementations."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.nn.associative import AssociativeMemory
from nested_learning.nn.execution import use_backend
from nested_learning.nn.self_modifying import SelfModifyingMemory
from nested_learning.ops.associative import associative
from nested_learning.ops.gates import GateKinds, Gates
from nested_learning.ops.memory import Design, Memory, Tokens, init_memory, loss, naive_associative
from nested_learning.ops.self_modifying import QKV, SelfDesign, naive_self_modifying, self_modifying

HEADS, DIM, CHUNK, HIDDEN = 4, 64, 64, 256


@dataclass(frozen=True)
class MemoryCase:
    """Something to run: `forward()` returns a tensor of `batch * seq_len` tokens; `leaves` get gradients.

    `flops`: multiplications and additions of the matrix products of one forward pass, 0 where they are not counted.
    """

    forward: Callable[[], Tensor]
    leaves: list[Tensor]
    flops: float


def core_design(name: str) -> Design:
    """Return the design of a core by its name."""
    gradient = "token" if name == "token-exact" else "chunk"
    return Design("l2", False, gradient, "token", name == "depth 2", False, CHUNK)


def core_flops(name: str, tokens: int) -> float:
    """Count the products of one forward pass of a core over `tokens` tokens of every head, momentum included.

    A matrix of d x d costs 2 d^2 a token: a read of weights and momentum and a write of both are four of them; scores
    and their product with the errors cost 2 c d each, the gates' kernel 2 c^2, the triangular solve c d a column.
    """
    d, c, h = DIM, CHUNK, HIDDEN
    pair = 2 * c * d
    per_token = {
        "chunk-start": 5 * 2 * d * d + 2 * pair + 2 * c * c,
        "token-exact": 6 * 2 * d * d + 3 * pair + 2 * c * c + c * d,
        "depth 2": 3 * 2 * d * h + 8 * 2 * d * h + 2 * pair + 2 * 2 * c * h + 2 * c * c,
    }[name]
    return float(per_token * tokens * HEADS)


def core_inputs(name: str, batch: int, seq_len: int) -> tuple[list[Tensor], Callable[..., tuple], list[Tensor]]:
    """Return queries, keys, values; what makes gates and memory of the other leaves; and those leaves."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    shape = (batch, HEADS, seq_len, DIM)
    q, k, v = F.normalize(normal(*shape), dim=-1), F.normalize(normal(*shape), dim=-1), normal(*shape)
    logits = normal(batch, HEADS, seq_len, 3)
    widths = [(DIM, HIDDEN), (HIDDEN, DIM)] if name == "depth 2" else [(DIM, DIM)]
    weights = [normal(batch, HEADS, i, o) * i**-0.5 for i, o in widths]

    def prepare(logits: Tensor, *weights: Tensor) -> tuple[Gates, Memory]:
        gates = Gates(logits[..., 0].sigmoid(), F.logsigmoid(logits[..., 1] + 5), F.logsigmoid(logits[..., 2] - 1))
        return gates, init_memory(weights, momentum=True)

    return [q, k, v], prepare, [logits, *weights]


def core(name: str, form: Callable[..., tuple], backend: str, batch: int, seq_len: int) -> MemoryCase:
    """Return a memory's core, gates included: from queries, keys, values and logits to what is read."""
    qkv, prepare, others = core_inputs(name, batch, seq_len)
    leaves = [x.requires_grad_() for x in (*qkv, *others)]
    design = replace(core_design(name), backend=backend)

    def forward() -> Tensor:
        gates, memory = prepare(*others)
        return form(Tokens(*qkv, gates), memory, None, design)[0]

    return MemoryCase(forward, leaves, core_flops(name, batch * seq_len) if form is associative else 0.0)


def per_token_gradients(tokens: Tokens, memory: Memory, _base: None, design: Design) -> tuple[Tensor, Memory]:
    """Do as common libraries do: the gradient of every token by `vmap(grad)`, then a scan over all of them."""
    q, k, v, gates = tokens
    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, None))
    one_head = torch.func.vmap(gradient, in_dims=(0, 0, 0, None))
    (weight,), (momentum,) = memory.weight, memory.momentum
    weight, momentum, outputs = weight.flatten(0, 1), momentum.flatten(0, 1), []
    flat = [x.flatten(0, 1).split(CHUNK, dim=1) for x in (q, k, v, gates.rate, gates.log_retention)]
    assert gates.log_momentum is not None
    for qs, ks, vs, rate, retention, keep in zip(*flat, gates.log_momentum.flatten(0, 1).split(CHUNK, 1), strict=True):
        (updates,) = one_head((weight,), ks, vs, design)
        states = []
        for t in range(qs.shape[1]):
            momentum = keep[:, t, None, None].exp() * momentum - rate[:, t, None, None] * updates[:, t]
            weight = retention[:, t, None, None].exp() * weight + momentum
            states.append(weight)
        outputs.append((qs[:, :, None] @ torch.stack(states, 1)).squeeze(2))
    return torch.cat(outputs, 1).unflatten(0, q.shape[:2]), memory


def attention_core(batch: int, seq_len: int) -> MemoryCase:
    """Return causal softmax attention of the same heads: from queries, keys and values to what is read."""
    qkv, _, _ = core_inputs("attention", batch, seq_len)
    leaves = [x.requires_grad_() for x in qkv]
    flops = 2 * 2 * seq_len / 2 * DIM * HEADS * batch * seq_len
    return MemoryCase(lambda: F.scaled_dot_product_attention(*qkv, is_causal=True), leaves, flops)


def layer_case(layer: torch.nn.Module, call: Callable[[Tensor], Tensor], batch: int, seq_len: int) -> MemoryCase:
    """Return a whole layer of width `HEADS * DIM`."""
    x = torch.randn(batch, seq_len, HEADS * DIM, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return MemoryCase(lambda: call(x), [x, *layer.parameters()], 0.0)


def associative_layer(name: str, backend: str, batch: int, seq_len: int) -> MemoryCase:
    """Return our layer around a core."""
    depth = 2 if name == "depth 2" else 1
    kinds = GateKinds("gate", "gate", "gate", 1.0)
    layer = AssociativeMemory(HEADS * DIM, HEADS, 4, core_design(name), kinds, depth, HIDDEN, "learned")
    use_backend(layer, backend, torch.device("cpu"))
    return layer_case(layer, lambda x: layer(x, layer.init_state(batch))[0], batch, seq_len)


def titans_pytorch_layer(depth: int, batch: int, seq_len: int) -> MemoryCase:
    """Return the peer's memory layer; `titans-pytorch` must be installed."""
    from titans_pytorch import MemoryMLP, NeuralMemory

    memory = NeuralMemory(
        dim=HEADS * DIM,
        chunk_size=CHUNK,
        batch_size=CHUNK,
        heads=HEADS,
        dim_head=DIM,
        model=MemoryMLP(DIM, depth=depth, expansion_factor=HIDDEN / DIM),
    )
    return layer_case(memory, lambda x: memory(x)[0], batch, seq_len)


def self_modifying_parts(backend: str, batch: int, seq_len: int) -> tuple[Callable[..., tuple], QKV, Any, Any, Any]:
    """Return the memories of HOPE's layer, where keys, values and gates generate themselves, and what they read."""
    own = Design("l2", True, "token", "token", False, False, CHUNK, backend)
    design = SelfDesign(own, own, GateKinds("gate", "gate", "none", 1.0))
    torch.manual_seed(0)
    layer = SelfModifyingMemory(HEADS * DIM, HEADS, 4, design, ("key", "value", "gates"), 1, DIM)
    bias = layer.gate_bias[:, None].expand(batch, -1, seq_len, -1).detach().clone()
    views = QKV(*(torch.randn(batch, HEADS, seq_len, DIM) for _ in range(3)), bias)
    return self_modifying, views, layer.weights(), layer.init_state(batch).memory, design


def self_modifying_core(form: Callable[..., tuple], backend: str, batch: int, seq_len: int) -> MemoryCase:
    """Return them as something that trains."""
    _, views, base, state, design = self_modifying_parts(backend, batch, seq_len)
    leaves = [x.requires_grad_() for x in views] + tree.leaves(base)
    return MemoryCase(lambda: form(views, base, state, design)[0], leaves, 0.0)


# name -> (what makes it for (batch, tokens), the longest sequence that takes seconds, whether it trains too)
CASES: dict[str, tuple[Callable[[int, int], MemoryCase], int, bool]] = {
    "attention core (SDPA)": (attention_core, 4096, True),
    "matrix, chunk-start, momentum, C++": (partial(core, "chunk-start", associative, "cpp"), 4096, True),
    "matrix, token-exact, momentum, C++": (partial(core, "token-exact", associative, "cpp"), 4096, True),
    "matrix, chunk-start, momentum, torch": (partial(core, "chunk-start", associative, "eager"), 4096, True),
    "matrix, token-exact, momentum, torch": (partial(core, "token-exact", associative, "eager"), 4096, True),
    "depth 2, chunk-start, momentum, torch": (partial(core, "depth 2", associative, "eager"), 4096, True),
    "token loop of matrix, token-exact": (partial(core, "token-exact", naive_associative, "eager"), 256, True),
    "token loop of depth 2": (partial(core, "depth 2", naive_associative, "eager"), 256, True),
    "gradient of each token, then a scan": (partial(core, "chunk-start", per_token_gradients, "eager"), 256, True),
    "self-modifying, C++": (partial(self_modifying_core, self_modifying, "cpp"), 4096, True),
    "self-modifying, torch": (partial(self_modifying_core, self_modifying, "eager"), 4096, True),
    "token loop of self-modifying": (partial(self_modifying_core, naive_self_modifying, "eager"), 256, False),
    "layer, matrix, token-exact, C++": (partial(associative_layer, "token-exact", "cpp"), 1024, True),
    "layer, matrix, token-exact, torch": (partial(associative_layer, "token-exact", "eager"), 1024, True),
    "layer, depth 2, torch": (partial(associative_layer, "depth 2", "eager"), 1024, True),
    "titans-pytorch layer, matrix": (partial(titans_pytorch_layer, 1), 1024, True),
    "titans-pytorch layer, depth 2": (partial(titans_pytorch_layer, 2), 1024, True),
}
