"""Storing only the starts of chunks gives the gradients of storing everything, first and second ones."""

import torch
from ops.test_memory import CHUNK, Inputs, make_design, worst

from nested_learning import tree
from nested_learning.ops import deep
from nested_learning.ops.associative import associative
from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Memory, Tokens
from nested_learning.ops.recompute import ChunkLoop, recomputed

DESIGN = make_design("l2", "gd", "chunk", "token", 2, False)


def test_gradients_of_gradients_are_those_of_the_plain_loop(monkeypatch):
    results = []
    for is_plain in (False, True):
        if is_plain:
            monkeypatch.setattr("nested_learning.ops.chunked.recomputed", plain)
        inputs = Inputs(2 * CHUNK + 3, 2, True, True, 3, torch.float64)
        gradients = inputs.run(associative, DESIGN, create_graph=True)[-len(inputs.leaves) :]
        slope = sum(gradient.sin().sum() for gradient in gradients)
        second = torch.autograd.grad(slope, inputs.leaves, materialize_grads=True, allow_unused=True)
        results.append([*gradients, *second])
    assert worst(*results) < 1e-12


def test_only_inputs_and_chunk_starts_are_stored():
    kept = {}
    for name, form in (("starts", recomputed), ("everything", plain)):
        inputs, sizes = Inputs(8 * CHUNK, 2, False, False, 0, torch.float64), [CHUNK] * 8
        memory = Memory(inputs.weight, inputs.weight, (), 0)
        gates = Gates(inputs.logits[0].sigmoid() * 0.1, -inputs.logits[1].square(), None)
        total = 0

        def count(x):
            nonlocal total
            total += x.nbytes
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            form(
                lambda here, memory, base: deep.chunk(here, memory, base, DESIGN),
                sizes,
                Tokens(inputs.q, inputs.k, inputs.v, gates),
                memory,
                None,
            )
        kept[name] = total
    assert kept["starts"] < kept["everything"] / 5


def plain(step, sizes, inputs, state, shared):
    loop = ChunkLoop(step, sizes, (inputs, state, shared))
    (y, *_), _ = loop.run(tree.leaves(loop.given))
    return y, loop.after
