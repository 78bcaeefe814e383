"""The memory of activations and states, computed from tensors that have shapes but no numbers."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from nested_learning import tree
from nested_learning.data.batch import Batch
from nested_learning.nn.execution import use_recompute
from nested_learning.nn.language_model import LanguageModel
from nested_learning.planning.flops import line, row_lengths

if TYPE_CHECKING:
    from nested_learning.model.config import ModelConfig
    from nested_learning.objective.config import NextTokenConfig, OnlineConfig, ReconstructConfig

    AnyObjective = NextTokenConfig | OnlineConfig | ReconstructConfig


class Activations(NamedTuple):
    """Bytes that a forward pass keeps for its backward pass: `once`, and for each `row` of a micro-batch.

    `once` are copies of weights in a narrower dtype; a forward pass in float32 has none.
    """

    once: float
    row: float

    def of(self, num_rows: int) -> float:
        """Return the bytes for a micro-batch of `num_rows` rows."""
        return self.once + num_rows * self.row


def activations(
    model: "ModelConfig",
    objective: "AnyObjective",
    vocab_size: int,
    seq_len: int,
    dtype: torch.dtype,
    recompute: str = "off",
) -> Activations:
    """Return what a forward pass over rows of `seq_len` tokens keeps, with torch's own operators.

    It is measured with at most two layers and rows of a few spans of `model.span` tokens, and extrapolated: every
    further layer and span adds the same. Kernels for memories keep less than torch's operators. With `recompute=block`
    the backward pass computes the activations of one block at a time again, which are added.
    """
    lengths = row_lengths(model.span, seq_len, objective)
    numbers = [1, 2] if recompute == "block" else _few_layers(model)
    # fake tensors have the shapes and dtypes of CPU tensors, autocast included, but no numbers; all measurements share
    # one mode, so that each model is built once
    with FakeTensorMode():
        models = {number: replace(model, num_layers=number).build(vocab_size, seed=0) for number in numbers}

        def kept(num_layers: int, num_rows: int, recompute: str) -> float:
            built = models[num_layers]
            use_recompute(built, recompute)
            return _at_length(lengths, seq_len, lambda length: _kept(built, objective, length, num_rows, dtype))

        def of_rows(num_rows: int) -> float:
            # during the backward pass one block at a time has all its activations again
            total = _at_depth(model, lambda num_layers: kept(num_layers, num_rows, recompute))
            return total + kept(2, num_rows, "off") - kept(1, num_rows, "off") if recompute == "block" else total

        # bytes are linear in the rows. One row is not measured: its expanded tensors would be views, and not counted
        two, three = of_rows(2), of_rows(3)
    return Activations(max(0.0, 3 * two - 2 * three), three - two)


def parameter_bytes(model: "ModelConfig", vocab_size: int) -> float:
    """Return the bytes of all parameters, from models of at most two layers: every further layer adds the same."""
    with torch.device("meta"):
        return _at_depth(
            model,
            lambda number: float(
                sum(each.nbytes for each in replace(model, num_layers=number).build(vocab_size, seed=0).parameters())
            ),
        )


def state_bytes(model: "ModelConfig", vocab_size: int, seq_len: int) -> tuple[float, float]:
    """Return the bytes of a row's state before the first token, and after `seq_len` tokens."""
    lengths = row_lengths(model.span, seq_len)
    # the meta device keeps shapes only, which is all that is counted, and is several times faster than fake tensors
    with torch.device("meta"), torch.no_grad():
        models = {number: replace(model, num_layers=number).build(vocab_size, seed=0) for number in _few_layers(model)}

        def read(built: LanguageModel, length: int) -> float:
            _, state = built(torch.zeros(1, length, dtype=torch.int64), built.init_state(1))
            return float(tree.nbytes(state))

        first = _at_depth(model, lambda number: float(tree.nbytes(models[number].init_state(1))))
        last = _at_depth(
            model, lambda number: _at_length(lengths, seq_len, lambda length: read(models[number], length))
        )
    return first, last


def _few_layers(model: "ModelConfig") -> list[int]:
    return list(range(1, min(model.num_layers, 2) + 1))


def _at_depth(model: "ModelConfig", measure: Callable[[int], float]) -> float:
    """Return what `measure(num_layers)` would return for all layers of `model`, from at most two."""
    numbers = _few_layers(model)
    return line(numbers, [measure(number) for number in numbers], model.num_layers)


def _at_length(lengths: list[int], seq_len: int, measure: Callable[[int], float]) -> float:
    """Return what `measure(seq_len)` would return, from rows of the given `lengths`."""
    return line(lengths, [measure(length) for length in lengths], seq_len)


def _kept(model: LanguageModel, objective: "AnyObjective", seq_len: int, num_rows: int, dtype: torch.dtype) -> float:
    """Return the bytes of all that a forward pass keeps, without the parameters themselves."""
    tokens = torch.zeros(num_rows, seq_len, dtype=torch.int64)
    state = model.init_state(num_rows)
    parameters = {_storage(parameter) for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in parameters:
            kept[_storage(tensor)] = tensor
        return tensor

    cast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with saved_tensors_hooks(note, lambda tensor: tensor), cast:
        # the graph must live until all is counted: the address of a freed storage is used again
        step = objective.build()(model, Batch(tokens, tokens, tokens), state)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del step
    return float(total)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
