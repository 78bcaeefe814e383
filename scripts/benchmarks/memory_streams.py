"""The cost of a token far into a sequence: streamed in calls of 1,024 tokens, and one token at a time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.ops.associative import associative
from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Tokens
from scripts.benchmarks import memory_cases

CALL = 1024


@dataclass
class Stream:
    """A memory and its state: `read(num_tokens)` continues with random tokens."""

    step: Callable[[int, Any], Any]
    state: Any

    def read(self, num_tokens: int) -> None:
        """Read `num_tokens` tokens in one call."""
        with torch.no_grad():
            self.state = self.step(num_tokens, self.state)

    def state_bytes(self) -> int:
        """Count the bytes of the state; shared storage counts once."""
        storages = {x.untyped_storage().data_ptr(): x.nbytes for x in tree.leaves(self.state)}
        return sum(storages.values())


def core_stream(name: str, backend: str, batch: int) -> Stream:
    """Return a core of memory_cases as a stream."""
    (q, k, v), prepare, (logits, *weights) = memory_cases.core_inputs(name, batch, CALL)
    gates, memory = prepare(logits, *weights)
    design = replace(memory_cases.core_design(name), backend=backend)

    def step(num_tokens: int, state: Any) -> Any:
        q_in, k_in, v_in = (x[:, :, :num_tokens] for x in (q, k, v))
        here = Gates(*(x if x is None else x[:, :, :num_tokens] for x in gates))
        return associative(Tokens(q_in, k_in, v_in, here), state, None, design)[1]

    return Stream(step, memory)


def attention_stream(batch: int) -> Stream:
    """Return attention, whose state is the keys and values of all past tokens."""
    (q, k, v), _, _ = memory_cases.core_inputs("attention", batch, CALL)

    def step(num_tokens: int, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        q_in, k_in, v_in = (x[:, :, :num_tokens] for x in (q, k, v))
        keys, values = torch.cat([state[0], k_in], 2), torch.cat([state[1], v_in], 2)
        visible = torch.ones(num_tokens, keys.shape[2], dtype=torch.bool).tril(keys.shape[2] - num_tokens)
        F.scaled_dot_product_attention(q_in, keys, values, attn_mask=visible)
        return keys, values

    return Stream(step, (k[:, :, :0], v[:, :, :0]))


def self_modifying_stream(backend: str, batch: int) -> Stream:
    """Return the memories of HOPE's layer as a stream."""
    form, qkv, base, state, design = memory_cases.self_modifying_parts(backend, batch, CALL)

    def step(num_tokens: int, state: Any) -> Any:
        here = type(qkv)(*(x[:, :, :num_tokens] for x in qkv))
        return form(here, base, state, design)[1]

    return Stream(step, state)


STREAMS: dict[str, Callable[[int], Stream]] = {
    "attention core (SDPA), all keys kept": attention_stream,
    "matrix, token-exact, momentum, torch": partial(core_stream, "token-exact", "eager"),
    "matrix, token-exact, momentum, C++": partial(core_stream, "token-exact", "cpp"),
    "depth 2, chunk-start, momentum": partial(core_stream, "depth 2", "eager"),
    "self-modifying, torch": partial(self_modifying_stream, "eager"),
    "self-modifying, C++": partial(self_modifying_stream, "cpp"),
}
