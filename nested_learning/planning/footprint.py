"""The memory that a forward pass keeps for its backward pass, known without any: tensors have shapes only."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from nested_learning import tree
from nested_learning.data.batch import Batch
from nested_learning.nn.recomputing import use_recompute

if TYPE_CHECKING:
    from nested_learning.model.config import ModelConfig
    from nested_learning.objective.config import NextTokenConfig, OnlineConfig, ReconstructConfig

    AnyObjective = NextTokenConfig | OnlineConfig | ReconstructConfig


class Activations(NamedTuple):
    """Bytes that a forward pass keeps for its backward pass: once, and for each row that is read at a time.

    `once` are weights in a narrower type; a forward pass in float32 has none.
    """

    once: float
    row: float

    def of(self, num_rows: int) -> float:
        """Return the bytes for `num_rows` rows at a time."""
        return self.once + num_rows * self.row


def activations(
    model: "ModelConfig",
    objective: "AnyObjective",
    vocab_size: int,
    seq_len: int,
    dtype: torch.dtype,
    recompute: str = "off",
) -> Activations:
    """Return what a forward pass over rows of `seq_len` tokens keeps, by torch's own operators.

    Few layers, and rows of few stretches of `model.stretch` tokens are read, and the others follow: what is kept grows
    by as much with each. Kernels for memories keep less than torch's operators do. With `recompute=block` the backward
    pass makes the activations of one block at a time again, which are added.
    """

    def kept(model: "ModelConfig", num_rows: int, recompute: str) -> float:
        return _extrapolate(
            model, seq_len, lambda small, t: _kept(small, objective, vocab_size, t, num_rows, dtype, recompute)
        )

    def of_rows(num_rows: int) -> float:
        found = kept(model, num_rows, recompute)
        if recompute == "block":
            one, two = (kept(replace(model, num_layers=number), num_rows, "off") for number in (1, 2))
            found += two - one
        return found

    # of a single row, copies for each row are views
    two, three = of_rows(2), of_rows(3)
    return Activations(max(0.0, 3 * two - 2 * three), three - two)


def state_bytes(model: "ModelConfig", vocab_size: int, seq_len: int) -> tuple[float, float]:
    """Return the bytes of a row's state before the first token, and after `seq_len` tokens."""
    return (
        _extrapolate(model, seq_len, lambda small, _: _state(small, vocab_size, 0)),
        _extrapolate(model, seq_len, lambda small, length: _state(small, vocab_size, length)),
    )


def _extrapolate(model: "ModelConfig", seq_len: int, measure: Callable[["ModelConfig", int], float]) -> float:
    """Return what `measure` would return for `model` and `seq_len`, from few layers and short rows."""
    whole, rest = divmod(seq_len, model.stretch)
    lengths = [seq_len] if whole <= 3 else [2 * model.stretch + rest, 3 * model.stretch + rest]
    layers = list(range(1, min(model.num_layers, 2) + 1))
    found = [[measure(replace(model, num_layers=number), length) for length in lengths] for number in layers]
    return _line(layers, [_line(lengths, of_layers, seq_len) for of_layers in found], model.num_layers)


def _state(model: "ModelConfig", vocab_size: int, seq_len: int) -> float:
    """Return the bytes of the state of a row after `seq_len` tokens, all layers together."""
    with FakeTensorMode(), torch.no_grad():
        built = model.build(vocab_size, seed=0)
        state = built.init_state(1)
        if seq_len:
            _, state = built(torch.zeros(1, seq_len, dtype=torch.int64), state)
        return float(tree.nbytes(state))


def _line(x: list[int], y: list[float], at: int) -> float:
    """Return the value at `at` of the line through one or two points; through one it is flat."""
    return y[0] if len(x) == 1 else y[0] + (y[1] - y[0]) * (at - x[0]) / (x[1] - x[0])


def _kept(
    model: "ModelConfig",
    objective: "AnyObjective",
    vocab_size: int,
    seq_len: int,
    num_rows: int,
    dtype: torch.dtype,
    recompute: str,
) -> float:
    """Return the bytes of all that a forward pass keeps, the parameters themselves left out."""
    with FakeTensorMode():
        built = model.build(vocab_size, seed=0)
        use_recompute(built, recompute)
        tokens = torch.zeros(num_rows, seq_len, dtype=torch.int64)
        state = built.init_state(num_rows)
        own = {_place(parameter) for parameter in built.parameters()}
        kept: dict[int, Tensor] = {}

        def note(tensor: Tensor) -> Tensor:
            if _place(tensor) not in own:
                kept[_place(tensor)] = tensor
            return tensor

        cast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
        with saved_tensors_hooks(note, lambda tensor: tensor), cast:
            # the graph must live until all is counted: places are used again
            step = objective.build()(built, Batch(tokens, tokens, tokens), state)
        total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        del step
    return float(total)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
